"""Six techniques x four epsilons x three seeds on `planted`, the embedded synthetic data set.

Shows what an ablation looks like; the data are synthetic, so what comes out is no finding. Needs nothing: the texts are
generated. Three to four minutes on one CPU core.

    python -m launch.ablate --config=configs/ablation_planted.py --workdir=runs/ablation_planted
"""

import ml_collections

from configs import planted
from flax_attnat.allowed import TECHNIQUES


def get_config() -> ml_collections.ConfigDict:
    """The configuration."""
    config = planted.get_config()
    config.sweep.techniques = TECHNIQUES
    config.sweep.epsilons = (0.5, 1.0, 5.0, 15.0)
    config.seeds = (0, 1, 2)
    config.model.embedding_size = 32
    config.model.hidden_size = 32
    config.data.bucket_widths = (26,)
    config.optimizer.learning_rate = 3e-3
    config.training.epochs = 3
    return config
