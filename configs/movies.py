r"""Sentiment of long film reviews with human rationales (ERASER, DeYoung et al. 2020).

Beside the paper's ten datasets, for the agreement of attention with what people marked; the hyper-parameters are
those of the paper's single-sequence tasks, the least word frequency is our choice. Reviews have about 800 words.
Needs movies.tar.gz (4 MB, downloaded where `raw_dir` lacks it).

    python -m launch.train --config=configs/movies.py --config.technique=attention_iat --config.epsilon=5 \
        --config.data.raw_dir=DIR --workdir=runs/movies
"""

import ml_collections

from flax_attnat.config import default_config


def get_config() -> ml_collections.ConfigDict:
    """The configuration."""
    config = default_config()
    config.dataset = "movies"
    config.data.min_df = 2
    config.data.bucket_widths = (256, 512, 768, 1024, 1536, 2048)
    return config
