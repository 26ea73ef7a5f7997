r"""Natural language inference on SNLI, the hyper-parameters of Kitada & Iyatomi 2021.

The paper's SNLI experiment (six techniques, BiLSTM with additive attention over the premise). For comparison, a
single run published with Jain & Wallace's code (batch 128, 25 epochs, glove-840b): vanilla accuracy .779. Needs
snli_1.0.zip (95 MB, downloaded where `raw_dir` lacks it) and, as in the paper, 300-d vectors:
`--config.data.vectors=fasttext-simple`.

    python -m launch.train --config=configs/snli.py --config.technique=attention_iat --config.epsilon=5 \
        --config.data.raw_dir=DIR --workdir=runs/snli
"""

import ml_collections

from flax_attnat.config import default_config


def get_config() -> ml_collections.ConfigDict:
    """The configuration."""
    config = default_config()
    config.dataset = "snli"
    config.data.min_df = 3
    config.data.bucket_widths = (12, 16, 24, 32, 48, 96)
    config.optimizer.decay_attention = True
    config.training.epochs = 10
    config.training.selection = "accuracy"
    return config
