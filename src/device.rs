//! Devices, and the choice of a device.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Device that an operation runs on.
///
/// ```
/// use mem2gen::device::{Device, DeviceChoice};
///
/// assert_eq!("cuda:1".parse(), Ok(Device::Cuda(1)));
/// assert_eq!("auto".parse(), Ok(DeviceChoice::Auto));
/// assert_eq!(DeviceChoice::default().to_string(), "cpu");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Device {
    /// The CPU, on all cores.
    #[default]
    Cpu,
    /// The CUDA device of this number.
    Cuda(usize),
}

/// A choice of a device: one device, or the first CUDA device if there is one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum DeviceChoice {
    /// This device; an error when it can't be used.
    Only(Device),
    /// `cuda:0` if it can be used, else the CPU.
    Auto,
}

impl Default for DeviceChoice {
    fn default() -> Self {
        Self::Only(Device::Cpu)
    }
}

/// A name that is not a device.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a device, expected cpu, cuda:N or auto")]
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
            // Digits only: `+1` would parse as a number.
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
    fn displayed_names_parse_and_others_are_refused() {
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
