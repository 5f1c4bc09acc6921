"""The control of the ablation: ends that stand where learned ones went. A long run of chapter 12.

    python -m vdm_lite.runs.ch12.ablation_control --workers 1

Learned ends differ from fixed ones in two things: they move, and they end up elsewhere. Here they
are fixed at that other place from the first step on, and all else is as in ``ablation``. The clean
end stands where learned ones went, at about 12; the noisy end is this book's -5. The rows go to
``ablation_control.json`` beside this file.
"""

import itertools

from vdm_lite.runs import runner
from vdm_lite.runs.ch12 import ablation

CASES = tuple(
    (fourier, start, "fixed", seed)
    for seed, start, fourier in itertools.product(
        ablation.SEEDS, ablation.FOUND, ablation.EXPONENTS
    )
)


def main() -> None:
    """Train what has no row yet, and write the file after each."""
    cases = [(*case, ablation.STEPS) for case in CASES]
    runner.run(ablation.CONTROL, ablation.row, ablation.KEYS, cases)


if __name__ == "__main__":
    main()
