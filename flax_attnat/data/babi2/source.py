"""bAbI task 2, two supporting facts: its raw file and questions are described in `flax_attnat.data.stories`."""

from flax_attnat.data.stories import story_source

SOURCE = story_source(2)
