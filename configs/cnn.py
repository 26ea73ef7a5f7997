r"""Questions on CNN news articles with anonymised entities (Hermann et al. 2015), the hyper-parameters of Kitada &
Iyatomi 2021.

The paper's CNN experiment (six techniques, BiLSTM with additive attention over the article). Only entities of the
article can be the answer. For comparison, a single run published with Jain & Wallace's code: vanilla accuracy .644.
Needs the archive of questions, cnn.tgz (downloaded where `raw_dir` lacks it), and, as in the paper, 300-d vectors:
`--config.data.vectors=fasttext-simple`. A step of 90 articles of 760 words fits in 7 GiB with every technique
(`python -m benchmarks.long_passages`). This is a task for a GPU or a TPU: an epoch has about 4,230 steps.

    python -m launch.train --config=configs/cnn.py --config.technique=attention_iat --config.epsilon=5 \
        --config.data.raw_dir=DIR --workdir=runs/cnn
"""

import ml_collections

from flax_attnat.config import default_config


def get_config() -> ml_collections.ConfigDict:
    """The configuration."""
    config = default_config()
    config.dataset = "cnn"
    config.data.min_df = 8
    config.data.bucket_widths = (256, 384, 512, 640, 768, 1024, 1280, 2048)
    config.optimizer.decay_attention = True
    config.training.batch_size = 90
    config.training.epochs = 10
    config.training.selection = "accuracy"
    return config
