//! The trained half of Fig. 2 from settings to stored tables: stored results are not computed again, and recomputed
//! results are the same.

use std::fs;

use mem2gen::project::Layout;
use mem2gen::study::context::{Context, Profile};
use mem2gen::study::toy::trained::{TrainedSettings, toy_trained};

#[test]
fn networks_are_trained_once_and_results_are_reproduced() {
    let folder = tempfile::tempdir().unwrap();
    let context = Context::new(Layout::at(folder.path()), Profile::named("smoke").unwrap());
    let first = toy_trained(&context).unwrap();
    let settings: TrainedSettings = context.settings("toy_trained").unwrap();
    let sizes: Vec<usize> = settings.networks.iter().map(|n| n.k).collect();
    assert_eq!(first.summary.iter().map(|s| s.k).collect::<Vec<_>>(), sizes);
    assert_eq!(first.grid.len(), sizes.len() * settings.grid * settings.grid);
    for row in &first.summary {
        let of = |trained| first.attractors.iter().filter(|a| a.k == row.k && a.trained == trained).count();
        assert_eq!((of(true), of(false)), (row.attractors, row.exact_attractors));
        assert_eq!(first.clusters.iter().filter(|c| c.k == row.k).count(), row.clusters);
        let share: f64 = first.clusters.iter().filter(|c| c.k == row.k).map(|c| c.share).sum();
        assert!((share - 1.0).abs() < 1e-12 && row.misfit.rms > 0.0);
    }

    // From the tables alone.
    let out = context.output();
    for made in ["cells", "runs"] {
        fs::rename(out.join(made), out.join(format!("{made} aside"))).unwrap();
    }
    assert_eq!(toy_trained(&context).unwrap(), first);
    assert!(!out.join("runs").exists());
    // From the trained networks, which are finished.
    fs::rename(out.join("runs aside"), out.join("runs")).unwrap();
    fs::remove_dir_all(out.join("tables")).unwrap();
    assert_eq!(toy_trained(&context).unwrap(), first);
    // With `recompute` the networks are trained again.
    let manifests = || -> Vec<_> {
        let runs = fs::read_dir(out.join("runs")).unwrap();
        let mut all: Vec<_> = runs.map(|r| r.unwrap().path().join("manifest.json")).collect();
        all.sort();
        all.iter().map(|m| fs::metadata(m).unwrap().modified().unwrap()).collect()
    };
    let before = manifests();
    let again = context.clone().recomputing(true);
    assert_eq!(toy_trained(&again).unwrap(), first);
    assert!(before.iter().zip(manifests()).all(|(before, after)| *before < after));
}
