"""Search with shared weights: all options of a space in one network, by gradients or one path at a time."""

from planish.automl.supernet.gradient import Darts, Gdas, Proxyless
from planish.automl.supernet.network import Supernet
from planish.automl.supernet.proxies import proxies
from planish.automl.supernet.result import Result
from planish.automl.supernet.sandwich import Sandwich
from planish.automl.supernet.single import SinglePath
from planish.automl.supernet.slots import Slot

__all__ = ["Darts", "Gdas", "Proxyless", "Result", "Sandwich", "SinglePath", "Slot", "Supernet", "proxies"]
