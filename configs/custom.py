r"""A data set of your own, from CSV, TSV or JSONL files.

The fields of a row are `text,label`, or `premise,hypothesis,label`, or `passage,question,answer`, and, where there
is one, `rationale` (words copied from the text; several are separated by "|", or are a list in JSONL). Without a
dev or a test file, a tenth of the training file each is held out, by class. Look the files over first:

    python -m launch.prepare --check train.jsonl

The best epoch is chosen by accuracy on dev; of two classes `training.selection="auc"` chooses it as the paper does.
Set `optimizer.decay_attention` for pairs, as the paper has it there.

    python -m launch.train --config=configs/custom.py --config.data.train=train.jsonl --config.data.test=test.jsonl \
        --workdir=runs/custom
"""

import ml_collections

from flax_attnat.config import default_config


def get_config() -> ml_collections.ConfigDict:
    """The configuration."""
    config = default_config()
    config.dataset = "custom"
    config.data.min_df = 2
    config.training.selection = "accuracy"
    return config
