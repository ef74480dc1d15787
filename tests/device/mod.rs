//! The guarantees of the driver layer, on any CUDA device.

use mem2gen::ops::cuda::device::CudaDriver;
use mem2gen::ops::cuda::driver::{Arg, Driver, DriverError, Launch};

fn bytes(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|v| v.to_ne_bytes()).collect()
}

pub fn memory_is_kept_and_guarded(driver: &dyn Driver) {
    let block = driver.alloc(1000).unwrap();
    let pattern: Vec<u8> = (0..1000).map(|i| (i % 251) as u8).collect();
    driver.write(block, 0, &pattern).unwrap();
    driver.write(block, 990, &[7; 10]).unwrap();
    let mut back = [0; 20];
    driver.read(block, 980, &mut back).unwrap();
    assert_eq!((&back[..10], &back[10..]), (&pattern[980..990], &[7; 10][..]));
    assert!(matches!(driver.read(block, 981, &mut back), Err(DriverError::Call { call: "read", .. })));
    assert!(matches!(driver.write(block, usize::MAX, &[0]), Err(DriverError::Call { call: "write", .. })));
    driver.free(block);
    assert!(driver.read(block, 0, &mut back).is_err());
    driver.free(block);
    assert!(driver.limits().is_err(), "freeing twice was not reported");
    let limits = driver.limits().unwrap();
    let asked = 2 * limits.total;
    assert!(matches!(driver.alloc(asked), Err(DriverError::OutOfMemory { asked: a, .. }) if a == asked));
    driver.limits().unwrap();
}

const fn half_norms(args: &[Arg]) -> Launch<'_> {
    Launch { kernel: "half_norms", grid: [1, 1, 1], block: [128, 1, 1], shared: 0, args }
}

pub fn launches_are_checked(driver: &dyn Driver) {
    let [rows, centre, out] = [24, 8, 12].map(|bytes| driver.alloc(bytes).unwrap());
    driver.write(rows, 0, &bytes(&[1.0, 2.0, 3.0, 5.0, -1.0, 0.5])).unwrap();
    driver.write(centre, 0, &bytes(&[1.0, 1.0])).unwrap();
    let args = [
        Arg::Buffer(rows, 0),
        Arg::Buffer(centre, 0),
        Arg::Buffer(out, 0),
        Arg::I64(3),
        Arg::I32(2),
        Arg::I64(2),
    ];
    driver.launch(&half_norms(&args)).unwrap();
    let mut found = [0; 12];
    driver.read(out, 0, &mut found).unwrap();
    assert_eq!(found.to_vec(), bytes(&[0.5, 10.0, 2.125]));

    let refused = |launch: &Launch<'_>| match driver.launch(launch) {
        Err(DriverError::Launch { kernel, .. }) => assert_eq!(kernel, launch.kernel),
        other => panic!("{other:?}"),
    };
    refused(&half_norms(&args[..5]));
    refused(&Launch { kernel: "no_such_kernel", ..half_norms(&args) });
    refused(&Launch { block: [1 << 20, 1, 1], ..half_norms(&args) });
    refused(&Launch { shared: 1 << 30, ..half_norms(&args) });
    let limit = u32::try_from(driver.limits().unwrap().shared).unwrap();
    for shared in [limit, 1024] {
        driver.launch(&Launch { shared, ..half_norms(&args) }).unwrap();
    }
    refused(&Launch { shared: limit + 16, ..half_norms(&args) });
    // None of that ends the context.
    driver.launch(&half_norms(&args)).unwrap();
    for block in [rows, centre, out] {
        driver.free(block);
    }
    driver.limits().unwrap();
}

pub fn an_illegal_access_names_its_kernel_and_stops_the_device(driver: &dyn Driver) {
    let block = driver.alloc(64).unwrap();
    // A null pointer for the memories.
    let args =
        [Arg::Null, Arg::Buffer(block, 0), Arg::Buffer(block, 0), Arg::I64(1), Arg::I32(2), Arg::I64(2)];
    driver.launch(&half_norms(&args)).unwrap();
    let error = driver.read(block, 0, &mut [0; 4]).unwrap_err();
    assert!(matches!(error, DriverError::Launch { kernel: "half_norms", .. }), "{error}");
    for later in [driver.alloc(64).map(drop), driver.launch(&half_norms(&args)), driver.limits().map(drop)] {
        let text = match later {
            Err(e @ DriverError::Stopped { .. }) => e.to_string(),
            other => panic!("{other:?}"),
        };
        assert!(text.contains("half_norms"), "{text}");
    }
    assert!(matches!(CudaDriver::open(0).and_then(|d| d.limits()), Err(DriverError::Stopped { .. })));
}
