r"""Binary sentiment of the Stanford Sentiment Treebank, the hyper-parameters of Kitada & Iyatomi 2021.

The paper's SST experiment (six techniques, BiLSTM with additive attention). For comparison, a single run published
with Jain & Wallace's code: vanilla accuracy .808, F1 .784, AUC .902. Needs trainDevTestTrees_PTB.zip (0.8 MB,
downloaded where `raw_dir` lacks it) and, as in the paper, 300-d vectors (fastText wiki.simple.vec) by
`--config.data.vectors=FILE`; without them the vectors start random. More seeds: `--config.seeds=0,1,2,3,4`.

    python -m launch.train --config=configs/sst.py --config.technique=attention_iat --config.epsilon=5 \
        --config.data.raw_dir=DIR --workdir=runs/sst
"""

import ml_collections

from flax_attnat.config import default_config


def get_config() -> ml_collections.ConfigDict:
    """The configuration."""
    config = default_config()
    config.dataset = "sst"
    config.technique = "attention_iat"
    config.epsilon = 5.0
    config.data.min_length = 5
    config.data.bucket_widths = (16, 24, 32, 64)
    config.training.epochs = 8
    config.training.batch_size = 32
    return config
