//! Reading each committed table as rows and writing the rows again gives the same bytes.

use std::collections::BTreeSet;
use std::path::Path;

use mem2gen::frame::{TableError, read_parquet, write_parquet};
use mem2gen::study::subject::{networks_frame, networks_rows};
use mem2gen::study::toy::{self, trained};
use mem2gen::study::{attractors, basin, claims, curvature, energy, load, prompts, sweep};
use polars::prelude::DataFrame;

type Frame = Result<DataFrame, TableError>;
type Named = (String, fn(&DataFrame) -> Frame);

/// Rows of a frame, and a frame of the rows.
macro_rules! there_and_back {
    ($($module:ident)::+, $rows:ident, $frame:ident) => {
        |table: &DataFrame| -> Frame { $($module)::+::frame::$frame(&$($module)::+::frame::$rows(table)?) }
    };
}

/// The same for the rows of each network.
macro_rules! networks_there_and_back {
    ($module:ident, $rows:ident, $frame:ident) => {
        |table: &DataFrame| -> Frame {
            networks_frame(&networks_rows(table, $module::frame::$rows)?, $module::frame::$frame)
        }
    };
}

#[test]
fn every_committed_table_is_written_again_to_the_same_bytes() {
    let mut tables: Vec<Named> = vec![
        ("attractors".into(), networks_there_and_back!(attractors, census_rows, census_frame)),
        ("attractor_flows".into(), networks_there_and_back!(attractors, flow_rows, flow_frame)),
        ("basins".into(), networks_there_and_back!(basin, basin_summary_rows, basin_summary_frame)),
        (
            "basin_attractors".into(),
            networks_there_and_back!(basin, attractor_summary_rows, attractor_summary_frame),
        ),
        ("basin_returns".into(), networks_there_and_back!(basin, return_rows, return_frame)),
        ("claims".into(), there_and_back!(claims, claims_rows, claims_frame)),
        ("curvature_sets".into(), networks_there_and_back!(curvature, sets_rows, sets_frame)),
        ("curvature_spectra".into(), networks_there_and_back!(curvature, curves_rows, curves_frame)),
        ("memory_load".into(), there_and_back!(load, load_rows, load_frame)),
        ("potential_arcs".into(), networks_there_and_back!(energy, curves_rows, curves_frame)),
        ("potential_gaps".into(), networks_there_and_back!(energy, gaps_rows, gaps_frame)),
        ("prompts_doses".into(), there_and_back!(prompts, prompts_rows, prompts_frame)),
        ("prompts_spectra".into(), there_and_back!(prompts, spectrum_rows, spectrum_frame)),
        ("toy_ladder".into(), there_and_back!(toy, ladder_rows, ladder_frame)),
        ("toy_trained".into(), there_and_back!(trained, summary_rows, summary_frame)),
        ("toy_trained_attractors".into(), there_and_back!(trained, attractors_rows, attractors_frame)),
        ("toy_trained_clusters".into(), there_and_back!(trained, clusters_rows, clusters_frame)),
        ("toy_trained_grid".into(), there_and_back!(trained, grid_rows, grid_frame)),
    ];
    for plan in ["mnist_mlp", "mnist_unet", "fashion_mnist_mlp", "fashion_mnist_unet"] {
        let name = format!("transition_{plan}");
        tables.push((format!("{name}_samples"), there_and_back!(sweep, samples_rows, samples_frame)));
        tables.push((format!("{name}_examples"), there_and_back!(sweep, examples_rows, examples_frame)));
        tables.push((name, there_and_back!(sweep, cells_rows, cells_frame)));
    }
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("data/results");
    let named: BTreeSet<String> = tables.iter().map(|(name, _)| format!("{name}.parquet")).collect();
    let files = std::fs::read_dir(&folder).unwrap().map(|f| f.unwrap().file_name().into_string().unwrap());
    let found: BTreeSet<String> = files.filter(|name| name.ends_with(".parquet")).collect();
    assert_eq!(found, named);

    let again = tempfile::tempdir().unwrap();
    for (name, there_and_back) in tables {
        let path = folder.join(format!("{name}.parquet"));
        let table = read_parquet(&path).unwrap();
        let frame = there_and_back(&table).unwrap();
        assert_eq!(frame.schema(), table.schema(), "{name}");
        assert!(frame.equals_missing(&table), "{name}");
        let written = again.path().join(&name);
        write_parquet(&written, &frame).unwrap();
        assert!(std::fs::read(written).unwrap() == std::fs::read(path).unwrap(), "bytes of {name}");
    }
}
