"""The bundled model, and the names by which saved model folders load.

Authors
 * The speechbrain-cffma developers 2026
"""

# The lobes fill the registry.
import speechbrain_cffma.lobes  # noqa: F401
from speechbrain_cffma.hub.pretrainer import WeightsPretrainer
from speechbrain_cffma.registry import config_of, from_config

__all__ = ["WeightsPretrainer", "config_of", "from_config"]
