"""The bundled model, and the names that the files of saved models refer to.

Authors
 * The speechbrain-cffma developers 2026
"""

# Importing the lobes registers them.
import speechbrain_cffma.lobes  # noqa: F401
from speechbrain_cffma.hub.pretrainer import WeightsPretrainer
from speechbrain_cffma.registry import config_of, from_config

__all__ = ["WeightsPretrainer", "config_of", "from_config"]
