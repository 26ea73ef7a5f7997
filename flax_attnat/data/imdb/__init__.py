"""Film reviews of the Large Movie Review Dataset, positive or negative."""
