//! `mem2gen arch`: the paper's parameter counts, sums over layers, errors.

use crate::common::mem2gen;
use serde_json::Value;

fn json(arguments: &[&str]) -> Value {
    let said = mem2gen(&[&["arch", "--json"], arguments].concat());
    assert!(said.ok, "{}", said.stderr);
    serde_json::from_str(&said.stdout).unwrap()
}

#[test]
fn counts_are_the_papers_and_the_sums_of_their_layers() {
    for (dataset, channels, count) in [
        ("mnist", "128", 24_515_585),
        ("fashion-mnist", "128", 24_515_585),
        ("cifar10", "64", 8_952_067),
        ("cifar10", "96", 20_118_915),
        ("cifar10", "128", 35_746_307),
        ("lsun-church", "64", 27_460_355),
        ("lsun-church", "96", 61_745_283),
        ("lsun-church", "128", 109_733_379),
    ] {
        let all = json(&["--arch", "unet", "--dataset", dataset, "--channels", channels]);
        assert_eq!(all["parameters"].as_u64(), Some(count), "{dataset} {channels}");
        let layers = all["layers"].as_array().unwrap();
        let sum: u64 = layers.iter().map(|l| l["parameters"].as_u64().unwrap()).sum();
        assert_eq!(sum, count);
        let mflop: f64 = layers.iter().map(|l| l["mflop"].as_f64().unwrap()).sum();
        assert!((mflop / all["mflop"].as_f64().unwrap() - 1.0).abs() < 1e-9);
    }
    let toy = json(&["--arch", "toy"]);
    let layers = toy["layers"].as_array().unwrap();
    let sum: u64 = layers.iter().map(|l| l["parameters"].as_u64().unwrap()).sum();
    assert_eq!(sum, toy["parameters"].as_u64().unwrap() + toy["not_trained"].as_u64().unwrap());
    assert_eq!(json(&["--arch", "toy-code"])["arch"]["width"], 128);
}

#[test]
fn the_table_ends_with_the_count() {
    let said = mem2gen(&["arch", "--arch", "unet", "--dataset", "cifar10", "--channels", "96"]);
    assert!(said.ok, "{}", said.stderr);
    let last = said.stdout.lines().last().unwrap();
    assert!(last.starts_with("unet for 32x32x3: 20118915 parameters, "), "{last}");
    let row = said.stdout.lines().find(|l| l.starts_with("down.1.down ")).unwrap();
    let cells: Vec<&str> = row.split("  ").map(str::trim).filter(|c| !c.is_empty()).collect();
    // 8 x 8 x 192 values of 2 x 9 x 192 operations each.
    assert_eq!(cells, ["down.1.down", "conv 3x3, stride 2", "8x8x192", "331968", "42.467"]);
}

#[test]
fn images_of_other_sizes_get_small_networks() {
    let small = json(&["--arch", "unet", "--channels", "32", "--size", "14"]);
    assert_eq!(small["arch"]["multipliers"], serde_json::json!([1, 2]));
    let mlp = json(&["--arch", "mlp", "--size", "7"]);
    assert_eq!(mlp["parameters"], 901_937);
    let colour = json(&["--arch", "unet", "--channels", "32", "--in-channels", "3"]);
    assert_eq!(colour["layers"][0]["output"], serde_json::json!([28, 28, 3]));
}

#[test]
fn refusals_are_one_line() {
    for (arguments, words) in [
        (&["--arch", "unet", "--dataset", "imagenet"][..], &["imagenet"][..]),
        (&["--arch", "unet", "--channels", "2"], &["channels 2"]),
        (&["--arch", "unet", "--size", "0"], &["height 0"]),
        (&["--arch", "vit"], &["vit"]),
    ] {
        let said = mem2gen(&[&["arch"], arguments].concat());
        assert!(!said.ok && said.stdout.is_empty());
        assert!(said.stderr.lines().count() == 1, "{}", said.stderr);
        assert!(said.stderr.starts_with("mem2gen arch: "), "{}", said.stderr);
        assert!(words.iter().all(|w| said.stderr.contains(w)), "{}", said.stderr);
    }
}
