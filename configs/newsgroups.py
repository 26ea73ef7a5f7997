r"""Baseball or hockey, from 20 Newsgroups posts, the hyper-parameters of Kitada & Iyatomi 2021.

The paper's 20 Newsgroups experiment (six techniques, BiLSTM with additive attention), on the posts of 7 to 499
words without headers, footers and quotes. For comparison, a single run published with Jain & Wallace's code:
vanilla accuracy .922, F1 .917, AUC .978. Needs 20news-bydate.tar.gz (14 MB, downloaded where `raw_dir` lacks
it) and, as in the paper, 300-d vectors: `--config.data.vectors=fasttext-simple`.

    python -m launch.train --config=configs/newsgroups.py --config.technique=attention_iat --config.epsilon=5 \
        --config.data.raw_dir=DIR --workdir=runs/newsgroups
"""

import ml_collections

from flax_attnat.config import default_config


def get_config() -> ml_collections.ConfigDict:
    """The configuration."""
    config = default_config()
    config.dataset = "newsgroups"
    config.data.min_length = 6
    config.data.max_length = 500
    config.data.min_df = 2
    config.data.bucket_widths = (32, 64, 128, 192, 256, 384, 512)
    return config
