r"""Natural language inference on MultiNLI, the hyper-parameters of Kitada & Iyatomi 2021.

The paper's MultiNLI experiment (six techniques, BiLSTM with additive attention over the premise). The test split is
both official dev files; accuracy is also given for the matched and the mismatched one. Needs multinli_1.0.zip (227
MB, downloaded where `raw_dir` lacks it) and, as in the paper, 300-d vectors:
`--config.data.vectors=fasttext-simple`.

    python -m launch.train --config=configs/multi_nli.py --config.technique=attention_iat --config.epsilon=5 \
        --config.data.raw_dir=DIR --workdir=runs/multi_nli
"""

import ml_collections

from flax_attnat.config import default_config


def get_config() -> ml_collections.ConfigDict:
    """The configuration."""
    config = default_config()
    config.dataset = "multi_nli"
    config.data.min_df = 3
    config.data.bucket_widths = (16, 24, 32, 48, 64, 128)
    config.optimizer.decay_attention = True
    config.training.epochs = 10
    config.training.selection = "accuracy"
    return config
