// Makes modules of the scripts that stand in the page as text, each under an address that those after it import.
const here = document.getElementById("live"), addresses = new Map();
for (const script of here.querySelectorAll("script[data-module]")) {
  let text = script.textContent;
  for (const [name, address] of addresses) text = text.replaceAll(`"./${name}"`, JSON.stringify(address));
  addresses.set(script.dataset.module, URL.createObjectURL(new Blob([text], { type: "text/javascript" })));
}
const { start } = await import(addresses.get("live.mjs"));
start(here, JSON.parse(here.querySelector("script[data-live]").textContent));
