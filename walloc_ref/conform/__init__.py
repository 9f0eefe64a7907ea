"""The conformance suite's tools (SPEC.md section 14): run it, explain it, and prove that it catches what it should.

    suite       the manifest, the files that it lists, and whether they are what it says
    stages      every stage of this package behind the interface that any other implementation has: bytes in, bytes out
    compare     expected against actual output, such that everything that is not provably right is wrong
    runner      cases against this package, a command or a server; levels, verdicts and reports
    mutants     wrong implementations, each of which the runner must catch, and at the stage that it breaks
    validate    a stream that some encoder wrote: the first violation with clause, byte offset and hint
    publish     a report to publish, and the suite for fluster
    explain     what a case exercises, and where an output departs
    trace       what the plain codec does in a case, step by step, and where two such traces part

Nothing here prints; the command line does.
"""
