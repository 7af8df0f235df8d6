//! What the CPU model has to be told, and what Linux would say.

use backdoor_core::Nanos;

/// A node's processors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CpuParams {
    /// Number of cores, at least one.
    pub cores: usize,
    /// How long a task keeps its core while others wait for it, more than zero. [`Nanos::MAX`]: until its work is done,
    /// which makes a core a first-come-first-served server.
    pub slice: Nanos,
}

impl CpuParams {
    /// Linux with the EEVDF scheduler, default settings and a timer interrupt every `tick` (1 ms for HZ=1000, 4 ms for
    /// HZ=250): the [base slice](Self::linux_base_slice), rounded up to whole ticks.
    ///
    /// Rounded, because without HRTICK a used-up slice is noticed at the next tick; with HZ=250 tasks run far longer
    /// than the base slice (message of kernel commit 2ae891b82695).
    pub fn linux(cores: usize, tick: Nanos) -> Self {
        let tick = tick.0.max(1);
        CpuParams { cores, slice: Nanos(Self::linux_base_slice(cores).0.div_ceil(tick).saturating_mul(tick)) }
    }

    /// Linux's default `base_slice_ns`: 0.70 ms × (1 + ⌊log2 min(cores, 8)⌋), so 1.4 ms for two cores and 2.8 ms from
    /// eight on.
    ///
    /// Source: `sysctl_sched_base_slice` and `get_update_sysctl_factor()` in kernel/sched/fair.c. The factor was 0.75 ms
    /// until commit 2ae891b82695, "sched: Reduce the default slice to avoid tasks getting an extra tick" (2025).
    pub fn linux_base_slice(cores: usize) -> Nanos {
        Nanos::from_micros(700) * u64::from(1 + cores.clamp(1, 8).ilog2())
    }

    /// Whether a model can be made of these.
    ///
    /// # Errors
    /// No cores, or a slice of zero, which would mean endlessly many switches in no time.
    pub fn check(&self) -> Result<(), CpuError> {
        if self.cores == 0 {
            return Err(CpuError::NoCores);
        }
        if self.slice == Nanos::ZERO {
            return Err(CpuError::NoSlice);
        }
        Ok(())
    }
}

impl Default for CpuParams {
    /// Two cores under Linux with HZ=1000: a slice of 2 ms.
    fn default() -> Self {
        CpuParams::linux(2, Nanos::from_millis(1))
    }
}

/// Why a CPU model, or a task in it, can't be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CpuError {
    /// A machine without cores.
    #[error("a node needs at least one core")]
    NoCores,
    /// A slice of zero.
    #[error("the scheduler's slice must be more than zero")]
    NoSlice,
    /// A core that the machine does not have.
    #[error("core {core} does not exist: the node has {cores}, numbered from 0")]
    NoSuchCore {
        /// The core asked for.
        core: usize,
        /// Number of cores.
        cores: usize,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base_slices_are_those_of_the_kernel() {
        // The list in the message of commit 2ae891b82695.
        for (cores, micros) in [(1, 700), (2, 1_400), (3, 1_400), (4, 2_100), (7, 2_100), (8, 2_800), (64, 2_800)] {
            assert_eq!(CpuParams::linux_base_slice(cores), Nanos::from_micros(micros), "{cores} cores");
        }
    }

    #[test]
    fn slices_end_at_ticks() {
        assert_eq!(CpuParams::default().slice, Nanos::from_millis(2));
        assert_eq!(CpuParams::linux(8, Nanos::from_millis(1)).slice, Nanos::from_millis(3));
        assert_eq!(CpuParams::linux(2, Nanos::from_millis(4)).slice, Nanos::from_millis(4));
        assert_eq!(CpuParams::linux(2, Nanos::ZERO).slice, Nanos::from_micros(1_400));
    }

    #[test]
    fn impossible_machines_are_refused() {
        assert_eq!(CpuParams { cores: 0, ..Default::default() }.check(), Err(CpuError::NoCores));
        assert_eq!(CpuParams { slice: Nanos::ZERO, ..Default::default() }.check(), Err(CpuError::NoSlice));
    }
}
