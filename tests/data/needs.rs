//! What a pass of a network in diffusers' layout takes in memory, against what it is estimated to take.

use std::path::Path;

use candle_core::{DType, Device, Tensor};
use mem2gen::net::diffusers::{Folder, Unet};

use crate::fuzz::peak;

fn close(what: &str, estimate: f64, measured: usize) {
    let ratio = estimate / measured as f64;
    println!("{what}: {:.2} MB estimated, {:.2} MB measured", estimate / 1e6, measured as f64 / 1e6);
    assert!((0.8..1.3).contains(&ratio), "{what}: {estimate} bytes estimated, {measured} measured");
}

#[test]
fn memory_is_what_was_estimated() {
    let folder =
        Folder::open(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/diffusers/tiny")).unwrap();
    // One thread, so that the counter sees all.
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
    pool.install(|| {
        let cpu = Device::Cpu;
        for (dtype, products) in [(DType::F32, true), (DType::F16, false)] {
            let mut unet = folder.unet(dtype, &cpu).unwrap();
            let vae = folder.vae(dtype, &cpu).unwrap();
            for (side, score_bytes) in [(32, 1 << 18), (32, 64 << 20)] {
                let normal =
                    |n: &[usize]| Tensor::randn(0f32, 1.0, n, &cpu).unwrap().to_dtype(dtype).unwrap();
                let (latents, text) = (normal(&[1, 4, side, side]), normal(&[1, 77, 16]));
                let times = Tensor::new(&[501f32], &cpu).unwrap();
                unet.set_score_bytes(score_bytes);
                let what = format!("{dtype:?} {side} {score_bytes}");
                let (pass, product) = unet.pass_bytes((side, side), 77);
                let (_, held) = peak(|| unet.forward(&latents, &times, &text).unwrap());
                close(&format!("{what} pass"), pass, held);
                if products {
                    let (_, held) = peak(|| unet.vjp(&latents, &times, &text, &latents).unwrap());
                    close(&format!("{what} product"), product, held);
                }
                let (_, held) = peak(|| vae.decode(&latents).unwrap());
                close(&format!("{what} decode"), vae.decode_bytes((side, side)), held);
            }
        }
        // A network of zeros is not read, and it computes.
        let path = folder.path().join("unet");
        let (unet, stored) = Unet::zeros(&path, DType::F32, &cpu).unwrap();
        assert_eq!((stored.tensors, stored.parameters, stored.bytes), (208, 200_644, 802_576));
        let latents = Tensor::ones((1, 4, 8, 8), DType::F32, &cpu).unwrap();
        let text = Tensor::ones((1, 3, 16), DType::F32, &cpu).unwrap();
        let times = Tensor::new(&[9f32], &cpu).unwrap();
        let found = unet.forward(&latents, &times, &text).unwrap();
        assert!(found.flatten_all().unwrap().to_vec1::<f32>().unwrap().iter().all(|v| *v == 0.0));
    });
}
