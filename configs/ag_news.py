r"""World or business, from AG News descriptions, the hyper-parameters of Kitada & Iyatomi 2021.

The paper's AG News experiment (six techniques, BiLSTM with additive attention). For comparison, a single run
published with Jain & Wallace's code: vanilla accuracy .958, F1 .958, AUC .990. Needs ag_news_csv.tar.gz (12 MB,
downloaded where `raw_dir` lacks it) and, as in the paper, 300-d vectors:
`--config.data.vectors=fasttext-simple`.

    python -m launch.train --config=configs/ag_news.py --config.technique=attention_iat --config.epsilon=5 \
        --config.data.raw_dir=DIR --workdir=runs/ag_news
"""

import ml_collections

from flax_attnat.config import default_config


def get_config() -> ml_collections.ConfigDict:
    """The configuration."""
    config = default_config()
    config.dataset = "ag_news"
    config.data.min_df = 5
    config.data.bucket_widths = (32, 48, 64, 96, 128, 256)
    return config
