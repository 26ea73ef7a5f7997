"""The six techniques on `planted`, the embedded synthetic data set: a first look, not a reproduction.

Needs nothing: the texts are generated. Takes under a minute per technique on two CPU cores.

    python -m launch.train --config=configs/planted.py --config.technique=attention_at --workdir=runs/planted_at
"""

import ml_collections

from flax_attnat.config import default_config


def get_config() -> ml_collections.ConfigDict:
    """The configuration."""
    config = default_config()
    config.dataset = "planted"
    config.technique = "attention_iat"
    config.epsilon = 1.0
    config.model.embedding_size = 64
    config.model.hidden_size = 64
    config.data.bucket_widths = (32,)
    config.training.epochs = 5
    return config
