r"""bAbI task 2, two supporting facts, the hyper-parameters of Kitada & Iyatomi 2021.

As babi1, with stories of up to 551 words. For comparison, a single run published with Jain & Wallace's code:
vanilla accuracy .653. Needs tasks_1-20_v1-2.tar.gz (16 MB, downloaded where `raw_dir` lacks it). Without it,
`--config.dataset=simulated2` trains on stories written by a simulator.

    python -m launch.train --config=configs/babi2.py --config.technique=attention_iat --config.epsilon=5 \
        --config.data.raw_dir=DIR --workdir=runs/babi2
"""

import ml_collections

from configs import babi1


def get_config() -> ml_collections.ConfigDict:
    """The configuration."""
    config = babi1.get_config()
    config.dataset = "babi2"
    config.data.bucket_widths = (64, 128, 192, 256, 384, 576)
    return config
