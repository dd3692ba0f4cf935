"""Every workload, in the order in which they run and are told of."""

import bulk
import fleet
import flight
import flood
import layers
import small

WORKLOADS = (
    small.MANY,
    small.ONE,
    layers.WORKLOAD,
    flight.WORKLOAD,
    bulk.NEAR,
    bulk.FAR,
    bulk.BESIDE,
    flood.WORKLOAD,
    fleet.FLEET_IDLE,
    fleet.FLEET_RETURN,
    fleet.FLEET_ASKED,
)
