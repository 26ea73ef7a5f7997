r"""bAbI task 1, one supporting fact, the hyper-parameters of Kitada & Iyatomi 2021.

The paper's bAbI experiment (six techniques, BiLSTM with additive attention over the story); size of the model,
batch and number of epochs are Jain & Wallace's. For comparison, a single run published with their code: vanilla
accuracy 1.000. Needs tasks_1-20_v1-2.tar.gz (16 MB, downloaded where `raw_dir` lacks it). Without it,
`--config.dataset=simulated1` trains on stories written by a simulator.

    python -m launch.train --config=configs/babi1.py --config.technique=attention_iat --config.epsilon=5 \
        --config.data.raw_dir=DIR --workdir=runs/babi1
"""

import ml_collections

from flax_attnat.config import default_config


def get_config() -> ml_collections.ConfigDict:
    """The configuration."""
    config = default_config()
    config.dataset = "babi1"
    config.data.bucket_widths = (16, 32, 48, 72)
    config.model.embedding_size = 50
    config.model.hidden_size = 32
    config.optimizer.decay_attention = True
    config.training.batch_size = 50
    config.training.epochs = 100
    config.training.selection = "accuracy"
    return config
