//! Which of an index's images run on this machine's processor, and which of them best.

use std::fmt;

use serde::Deserialize;

use super::manifest::Short;

/// A kind of machine, as an index entry or an image's configuration names it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct Platform {
    /// "linux".
    #[serde(default)]
    pub os: Short,
    /// "amd64", "arm64".
    #[serde(default)]
    pub architecture: Short,
    /// "v2" of amd64, "v7" of arm; empty for the architecture's first.
    #[serde(default)]
    pub variant: Short,
}

/// What a processor runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Processor {
    architecture: &'static str,
    /// Best first; an empty variant means the first of these that is the architecture's base.
    variants: Vec<&'static str>,
    /// What an image without a variant is built for.
    base: &'static str,
    /// All variants of the architecture that the agent knows; those that are not in `variants` do not run here.
    known: &'static [&'static str],
}

impl Processor {
    /// This machine's.
    pub fn ours() -> Self {
        match std::env::consts::ARCH {
            "x86_64" => Self::amd64(amd64_level()),
            "aarch64" => Self::arm64(arm64_is_v9()),
            "arm" => Self::arm(arm_version()),
            other => Self {
                architecture: other,
                variants: vec![""],
                base: "",
                known: &[""],
            },
        }
    }

    /// An x86-64 processor of a level, 1 to 4 (x86-64 psABI, section "Micro-Architecture Levels").
    pub fn amd64(level: usize) -> Self {
        let levels = &["v4", "v3", "v2", "v1"];
        Self {
            known: levels,
            architecture: "amd64",
            variants: levels[levels.len() - level.clamp(1, levels.len())..].to_vec(),
            base: "v1",
        }
    }

    /// A 64-bit ARM processor: any runs v8.
    pub fn arm64(is_v9: bool) -> Self {
        Self {
            architecture: "arm64",
            variants: if is_v9 { vec!["v9", "v8"] } else { vec!["v8"] },
            base: "v8",
            known: &["v9", "v8"],
        }
    }

    /// A 32-bit ARM processor of a version, 5 to 8. Images without a variant are for v7, as containerd reads them.
    pub fn arm(version: usize) -> Self {
        let versions = &["v8", "v7", "v6", "v5"];
        Self {
            known: versions,
            architecture: "arm",
            variants: versions[8 - version.clamp(5, 8)..].to_vec(),
            base: "v7",
        }
    }

    /// How well an image for this platform runs here: 0 is best, `None` is not at all. A variant of this architecture that
    /// the agent does not know may run here, and comes after all that do.
    pub fn rank(&self, platform: &Platform) -> Option<usize> {
        if &*platform.os != "linux" || &*platform.architecture != self.architecture {
            return None;
        }
        let variant = match &*platform.variant {
            "" => self.base,
            variant => variant,
        };
        // An image without a variant loses to one that names it; both run.
        let unnamed = usize::from(platform.variant.is_empty());
        match self.variants.iter().position(|ours| *ours == variant) {
            Some(place) => Some(2 * place + unnamed),
            None if self.known.contains(&variant) => None,
            None => Some(2 * self.variants.len()),
        }
    }
}

impl fmt::Display for Processor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.variants.first() {
            Some(best) if !best.is_empty() => write!(f, "linux/{} up to {best}", self.architecture),
            _ => write!(f, "linux/{}", self.architecture),
        }
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", &*self.os, &*self.architecture)?;
        match &*self.variant {
            "" => Ok(()),
            variant => write!(f, "/{variant}"),
        }
    }
}

#[cfg(target_arch = "x86_64")]
fn amd64_level() -> usize {
    use std::arch::is_x86_feature_detected as has;
    let second = has!("cmpxchg16b")
        && has!("popcnt")
        && has!("sse3")
        && has!("ssse3")
        && has!("sse4.1")
        && has!("sse4.2");
    let third = second
        && has!("avx")
        && has!("avx2")
        && has!("bmi1")
        && has!("bmi2")
        && has!("f16c")
        && has!("fma")
        && has!("lzcnt")
        && has!("movbe");
    let fourth = third
        && has!("avx512f")
        && has!("avx512bw")
        && has!("avx512cd")
        && has!("avx512dq")
        && has!("avx512vl");
    1 + usize::from(second) + usize::from(third) + usize::from(fourth)
}

#[cfg(not(target_arch = "x86_64"))]
fn amd64_level() -> usize {
    1
}

/// ARMv9 makes SVE2 part of every processor of the A profile (Arm Architecture Reference Manual).
#[cfg(target_arch = "aarch64")]
fn arm64_is_v9() -> bool {
    std::arch::is_aarch64_feature_detected!("sve2")
}

#[cfg(not(target_arch = "aarch64"))]
fn arm64_is_v9() -> bool {
    false
}

/// What the kernel says of the first processor; 7 when it does not say.
fn arm_version() -> usize {
    let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let line = text.lines().find(|l| l.starts_with("CPU architecture"));
    let number = line.and_then(|line| line.split(':').nth(1));
    number.and_then(|n| n.trim().parse().ok()).unwrap_or(7)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn platform(architecture: &str, variant: &str) -> Platform {
        Platform {
            os: "linux".into(),
            architecture: architecture.into(),
            variant: variant.into(),
        }
    }

    fn best<'a>(processor: &Processor, variants: &[&'a str]) -> Option<&'a str> {
        let ranked = variants.iter().filter_map(|variant| {
            let platform = platform(processor.architecture, variant);
            Some((processor.rank(&platform)?, *variant))
        });
        ranked.min().map(|(_, variant)| variant)
    }

    #[test]
    fn the_best_that_runs_and_nothing_better() {
        let all = ["", "v1", "v2", "v3", "v4"];
        for (level, wanted) in [(1, "v1"), (2, "v2"), (3, "v3"), (4, "v4")] {
            assert_eq!(best(&Processor::amd64(level), &all), Some(wanted));
        }
        assert_eq!(best(&Processor::amd64(3), &["v4", ""]), Some(""));
        assert_eq!(best(&Processor::amd64(3), &["v4"]), None);
        assert_eq!(best(&Processor::amd64(1), &["v2", "v3"]), None);
    }

    #[test]
    fn a_variant_that_nobody_knows_comes_last() {
        for processor in [Processor::amd64(1), Processor::arm64(false)] {
            assert_eq!(best(&processor, &["v77"]), Some("v77"));
            assert_eq!(best(&processor, &["v77", ""]), Some(""));
        }
        assert_eq!(best(&Processor::amd64(3), &["v77", "v1"]), Some("v1"));
        // Known, and known not to run here.
        assert_eq!(best(&Processor::amd64(3), &["v4"]), None);
    }

    #[test]
    fn arm_runs_what_is_older() {
        let all = ["v5", "v6", "v7", "v8"];
        assert_eq!(best(&Processor::arm(7), &all), Some("v7"));
        assert_eq!(best(&Processor::arm(6), &all), Some("v6"));
        assert_eq!(best(&Processor::arm(6), &["", "v7"]), None);
        assert_eq!(best(&Processor::arm64(false), &["v9", "v8"]), Some("v8"));
        assert_eq!(best(&Processor::arm64(false), &["v9", ""]), Some(""));
        assert_eq!(best(&Processor::arm64(true), &["v8", "v9"]), Some("v9"));
    }

    #[test]
    fn another_architecture_or_system_is_none() {
        let processor = Processor::amd64(4);
        assert_eq!(processor.rank(&platform("arm64", "")), None);
        let windows = Platform {
            os: "windows".into(),
            ..platform("amd64", "")
        };
        assert_eq!(processor.rank(&windows), None);
        assert_eq!(processor.rank(&Platform::default()), None);
    }
}
