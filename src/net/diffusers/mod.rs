//! Stable Diffusion 1 and 2: networks and files in the layout of diffusers.
//!
//! A folder has `unet`, `vae`, `text_encoder`, `tokenizer` and `scheduler`, each with its settings; [`Folder`] opens it. All
//! settings are honoured or refused, and all tensors are accounted for by name and shape. Only safetensors are read,
//! because pickles may execute code.
//!
//! The computation is that of diffusers: GELU with the exact error function, groups and epsilons from the settings, one
//! time for each row. [`Unet`] is differentiable with respect to its latents.

mod cache;
mod clip;
mod config;
mod files;
mod folder;
mod layers;
mod tokenizer;
mod unet;
mod vae;

pub use cache::cached;
pub use clip::{Clip, ClipConfig};
pub use files::Stored;
pub use folder::Folder;
pub use tokenizer::{Padding, Tokenizer, Tokens};
pub use unet::{AttentionMap, SCORE_BYTES, Unet, UnetConfig};
pub use vae::{Moments, Vae, VaeConfig};

use candle_core::{DType, Tensor};

use super::NetError;

/// Name of diffusers' files of weights, without the extension.
const WEIGHTS: &str = "diffusion_pytorch_model";

fn check_dtype(operation: &'static str, dtype: DType) -> Result<(), NetError> {
    match dtype {
        DType::F16 | DType::F32 | DType::F64 => Ok(()),
        _ => {
            let reason = format!("{} is not computed, expected f16, f32 or f64", dtype.as_str());
            Err(NetError::Precision { operation, reason })
        }
    }
}

fn check_shape(argument: &'static str, tensor: &Tensor, expected: &[usize]) -> Result<(), NetError> {
    if tensor.dims() == expected {
        return Ok(());
    }
    let found = tensor.dims().to_vec();
    Err(NetError::Shape { operation: "U-Net", argument, found, expected: format!("{expected:?}") })
}

/// Checks that images are `[rows, channels, height, width]`, with sides that are multiples of `multiple`.
fn check_image(
    operation: &'static str,
    argument: &'static str,
    images: &Tensor,
    channels: usize,
    multiple: usize,
) -> Result<(), NetError> {
    let fits = |side: usize| side > 0 && side.is_multiple_of(multiple);
    match *images.dims() {
        [_, found, height, width] if found == channels && fits(height) && fits(width) => Ok(()),
        _ => {
            let expected =
                format!("[rows, {channels}, height, width] with multiples of {multiple} as height and width");
            Err(NetError::Shape { operation, argument, found: images.dims().to_vec(), expected })
        }
    }
}
