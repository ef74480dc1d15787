//! Tables of several networks: the columns `dataset` and `network`, and those of the table of each network.

use polars::prelude::{DataFrame, PolarsError};
use serde::{Deserialize, Serialize};

use crate::frame::{Item, TableError, texts};

/// The rows of one network.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NetworkRows<R> {
    /// Data set.
    pub dataset: String,
    /// Name of the network.
    pub network: String,
    /// Its rows.
    pub rows: Vec<R>,
}

impl<R> NetworkRows<R> {
    /// Data set and network, as in titles of panels.
    pub fn title(&self) -> String {
        format!("{}, {}", self.dataset, self.network)
    }

    /// Whether these are the rows of this network on this data set.
    pub fn is_of(&self, dataset: &str, network: &str) -> bool {
        self.dataset == dataset && self.network == network
    }
}

/// A stored table about several networks.
pub struct NetworkTable<R> {
    /// Its name.
    pub name: &'static str,
    /// The table of the rows of one network.
    pub frame: fn(&[R]) -> Result<DataFrame, TableError>,
    /// The inverse of `frame`.
    pub rows: fn(&DataFrame) -> Result<Vec<R>, TableError>,
}

/// The rows of two tables about the same networks.
pub type NetworkTables<A, B> = (Vec<NetworkRows<A>>, Vec<NetworkRows<B>>);

/// Splits two kinds of rows. The cells of a network are concatenated.
pub(super) fn unzip_rows<A, B>(networks: Vec<NetworkRows<(Vec<A>, Vec<B>)>>) -> NetworkTables<A, B> {
    networks
        .into_iter()
        .map(|NetworkRows { dataset, network, rows }| {
            let (a, b): (Vec<Vec<A>>, Vec<Vec<B>>) = rows.into_iter().unzip();
            let (a, b) = (a.into_iter().flatten().collect(), b.into_iter().flatten().collect());
            let first = NetworkRows { dataset: dataset.clone(), network: network.clone(), rows: a };
            (first, NetworkRows { dataset, network, rows: b })
        })
        .unzip()
}

const KEYS: [&str; 2] = ["dataset", "network"];

/// One table of all networks: the table that `frame` makes of the rows of each, with the columns `dataset` and
/// `network` in front.
///
/// ```
/// use mem2gen::frame::{Item, frame};
/// use mem2gen::study::subject::{NetworkRows, networks_frame, networks_rows};
///
/// let networks = [NetworkRows { dataset: "mnist".into(), network: "mlp128".into(), rows: vec![2, 4, 8] }];
/// let table = networks_frame(&networks, |rows| frame("sizes", vec![usize::column("k", rows.to_vec())]))?;
/// assert_eq!(table.shape(), (3, 3));
/// assert_eq!(networks_rows(&table, |rows| usize::read(rows, "k"))?, networks);
/// # Ok::<(), mem2gen::frame::TableError>(())
/// ```
///
/// # Errors
/// Those of `frame`; [`TableError::Frame`] for tables with different columns.
pub fn networks_frame<R>(
    networks: &[NetworkRows<R>],
    frame: impl Fn(&[R]) -> Result<DataFrame, TableError>,
) -> Result<DataFrame, TableError> {
    let failed =
        |e: PolarsError| TableError::Frame { caption: "rows of networks".into(), reason: e.to_string() };
    let keyed = |keys: [&str; 2], rows: &[R]| {
        let mut one = frame(rows)?;
        for (place, (name, key)) in KEYS.into_iter().zip(keys).enumerate() {
            one.insert_column(place, texts(name, &vec![key; rows.len()])).map_err(failed)?;
        }
        Ok::<_, TableError>(one)
    };
    let mut all = keyed([""; 2], &[])?;
    for one in networks {
        all.vstack_mut(&keyed([&one.dataset, &one.network], &one.rows)?).map_err(failed)?;
    }
    Ok(all)
}

/// The inverse of [`networks_frame`]: `rows` reads the table of each network. Networks without rows are not in the table.
///
/// # Errors
/// Those of `rows`; [`TableError`] for a table without `dataset` or `network`.
pub fn networks_rows<R>(
    frame: &DataFrame,
    rows: impl Fn(&DataFrame) -> Result<Vec<R>, TableError>,
) -> Result<Vec<NetworkRows<R>>, TableError> {
    let [datasets, networks] = KEYS.map(|key| String::read(frame, key));
    let keys: Vec<(String, String)> = datasets?.into_iter().zip(networks?).collect();
    let mut start = 0;
    keys.chunk_by(|a, b| a == b)
        .map(|chunk| {
            let (dataset, network) = chunk[0].clone();
            let rows = rows(&frame.slice(start as i64, chunk.len()))?;
            start += chunk.len();
            Ok(NetworkRows { dataset, network, rows })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::{frame, integers};

    fn one(rows: &[usize]) -> Result<DataFrame, TableError> {
        frame("one", vec![Item::column("k", rows.to_vec())])
    }

    #[test]
    fn networks_survive_with_their_rows() {
        let network = |dataset: &str, network: &str, rows: &[usize]| NetworkRows {
            dataset: dataset.into(),
            network: network.into(),
            rows: rows.to_vec(),
        };
        let all = [
            network("mnist", "wide", &[1, 2]),
            network("mnist", "deep", &[1]),
            network("faces", "deep", &[3, 4, 5]),
        ];
        let frame = networks_frame(&all, one).unwrap();
        assert_eq!(frame.shape(), (6, 3));
        let read = |frame: &DataFrame| usize::read(frame, "k");
        assert_eq!(networks_rows(&frame, read).unwrap(), all);
        assert!(networks_rows(&frame.drop("network").unwrap(), read).is_err());
        assert_eq!(all[0].title(), "mnist, wide");
        assert!(networks_rows(&networks_frame(&[], one).unwrap(), read).unwrap().is_empty());
    }

    #[test]
    fn other_columns_are_refused() {
        let network =
            |rows: &[i64]| NetworkRows { dataset: "a".into(), network: "b".into(), rows: rows.to_vec() };
        let uneven = |rows: &[i64]| {
            let name = if rows.len() > 1 { "k" } else { "n" };
            frame("one", vec![integers(name, rows.to_vec())])
        };
        assert!(networks_frame(&[network(&[1]), network(&[1, 2])], uneven).is_err());
    }
}
