"""bAbI task 1, one supporting fact: its raw file and questions are described in `flax_attnat.data.stories`."""

from flax_attnat.data.stories import story_source

SOURCE = story_source(1)
