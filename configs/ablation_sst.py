r"""Attention AT on SST over eight epsilons and three seeds: 24 runs in one compiled program.

What the paper calls sensitivity to the perturbation size, for one technique; add
`--config.sweep.techniques=vanilla,attention_rp,attention_at,attention_iat` for others beside it. Needs what
`configs/sst.py` needs; `--config.data.vectors=FILE` for pretrained word vectors.

    python -m launch.ablate --config=configs/ablation_sst.py --config.data.raw_dir=DIR --workdir=runs/ablation_sst
"""

import ml_collections

from configs import sst


def get_config() -> ml_collections.ConfigDict:
    """The configuration."""
    config = sst.get_config()
    config.technique = "attention_at"
    config.sweep.epsilons = (0.1, 0.5, 1.0, 2.0, 5.0, 10.0, 15.0, 30.0)
    config.seeds = (0, 1, 2)
    return config
