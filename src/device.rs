//! Where work runs, and what a person may ask for.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Where an operation runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Device {
    /// The processor, on all its cores.
    #[default]
    Cpu,
    /// The CUDA device of this number.
    Cuda(usize),
}

/// What was asked for: a device and no other, or the first CUDA device where there is one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum DeviceChoice {
    /// This device; its absence is an error.
    Only(Device),
    /// `cuda:0` where it can be used, else the processor.
    Auto,
}

impl Default for DeviceChoice {
    fn default() -> Self {
        Self::Only(Device::Cpu)
    }
}

/// A name that is no device.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no device, expected cpu, cuda:N or auto")]
pub struct UnknownDevice(String);

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cpu => f.write_str("cpu"),
            Self::Cuda(number) => write!(f, "cuda:{number}"),
        }
    }
}

impl fmt::Display for DeviceChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Only(device) => device.fmt(f),
            Self::Auto => f.write_str("auto"),
        }
    }
}

impl FromStr for Device {
    type Err = UnknownDevice;

    fn from_str(text: &str) -> Result<Self, UnknownDevice> {
        match text.strip_prefix("cuda:") {
            None if text == "cpu" => Ok(Self::Cpu),
            // Only plain digits: `+1` would parse as a number.
            Some(digits) if digits.bytes().all(|b| b.is_ascii_digit()) => {
                digits.parse().map(Self::Cuda).map_err(|_| UnknownDevice(text.to_owned()))
            }
            _ => Err(UnknownDevice(text.to_owned())),
        }
    }
}

impl FromStr for DeviceChoice {
    type Err = UnknownDevice;

    fn from_str(text: &str) -> Result<Self, UnknownDevice> {
        if text == "auto" { Ok(Self::Auto) } else { text.parse().map(Self::Only) }
    }
}

macro_rules! by_name {
    ($t:ty) => {
        impl From<$t> for String {
            fn from(value: $t) -> Self {
                value.to_string()
            }
        }

        impl TryFrom<String> for $t {
            type Error = UnknownDevice;

            fn try_from(text: String) -> Result<Self, UnknownDevice> {
                text.parse()
            }
        }
    };
}

by_name!(Device);
by_name!(DeviceChoice);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_go_there_and_back_and_others_are_refused() {
        for name in ["cpu", "cuda:0", "cuda:13"] {
            assert_eq!(name.parse::<Device>().unwrap().to_string(), name);
            assert_eq!(name.parse::<DeviceChoice>().unwrap().to_string(), name);
        }
        assert_eq!("auto".parse::<DeviceChoice>().unwrap(), DeviceChoice::Auto);
        for name in
            ["", "gpu", "cuda", "cuda:", "cuda:-1", "cuda:+1", "CPU", "cuda:0 ", "cuda:99999999999999999999"]
        {
            let error = name.parse::<DeviceChoice>().unwrap_err();
            assert!(error.to_string().contains(name), "{error}");
        }
    }
}
