"""Every workload, in the order in which they run and are told of."""

import flight
import small

WORKLOADS = (small.MANY, small.ONE, flight.WORKLOAD)
