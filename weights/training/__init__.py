"""Training of the models with the upstream's own PyTorch classes: the parts behind `weights/train.py`.

How it works, in the order of the modules:

1. `encoder`: closed form. Principal components of the wavelet packet coefficients of the training data (`wavelet`,
   `data`), weighted by the norms of the synthesis functions so that "variance" means squared error of samples, sorted by
   falling variance. Each is scaled so that one more bit of order-0 entropy buys the same squared error everywhere
   (`equal_slope_scales`; for audio, whose levels differ by far more, `companded_scales`); that slope sets the rate.
2. `image_start`, and `linear_start` in `audio_model`: the decoder starts at the linear solution, with its last
   convolution fitted by least squares.
3. `image_model`, `audio_model`: it is trained on symbols rounded exactly as in use, to the squared error of the *samples*.
   On small crops that is approximated by the coefficients' errors times the norms of their synthesis functions. Of images,
   in the last phase, on large crops, it is exact: a quadratic form of the coefficients' error, with value and gradient
   computed by hand from the synthesis matrix (`Wavelet.loss_and_grad`).
4. `image_widen`: a decoder that has been trained so gets more latents, which it decodes linearly at first, or wider blocks.
5. `image_range`: it goes on, for a whole range of quantiser steps.
6. `step_weights`: which planes take how much of a coarser step.
7. `rounding`: weights in fewer bits, for smaller files.

`settings` has the models' configurations and all hyperparameters, `schedule` what every training shares. Everything is
seeded, logged to ``RUN/log.txt``, and resumable from ``RUN/checkpoint.pt``. Surprises:

* Rates are estimated here by order-0 entropy; the bitstream's own tables come last (``train.py tables``).
* The schedule follows elapsed time (``--minutes``), so the number of steps depends on the machine.
"""
