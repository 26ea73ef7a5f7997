r"""bAbI task 3, three supporting facts, the hyper-parameters of Kitada & Iyatomi 2021.

As babi1, with stories of up to 1,347 words. For comparison, a single run published with Jain & Wallace's code:
vanilla accuracy .643. Needs tasks_1-20_v1-2.tar.gz (16 MB, downloaded where `raw_dir` lacks it). Without it,
`--config.dataset=simulated3` trains on stories written by a simulator.

    python -m launch.train --config=configs/babi3.py --config.technique=attention_iat --config.epsilon=5 \
        --config.data.raw_dir=DIR --workdir=runs/babi3
"""

import ml_collections

from configs import babi1


def get_config() -> ml_collections.ConfigDict:
    """The configuration."""
    config = babi1.get_config()
    config.dataset = "babi3"
    config.data.bucket_widths = (128, 256, 384, 512, 768, 1408)
    return config
