//! Stored vectors of captions.

use std::collections::HashMap;
use std::path::Path;

use half::f16;
use ndarray::{Array2, ArrayView1, ArrayView2};
use safetensors::tensor::{Dtype, SafeTensors, TensorView};

use crate::net::NetError;
use crate::project::Layout;
use crate::store::{self, cut_reason, from_json, quoted};

/// Names of the tensor and of the entry of the file's metadata that lists the captions in JSON.
const TENSOR: &str = "embeddings";
const CAPTIONS: &str = "captions";

/// Captions and their vectors, which are kept in half precision.
///
/// ```
/// use mem2gen::net::text::Embeddings;
/// use ndarray::array;
///
/// let folder = tempfile::tempdir()?;
/// let path = folder.path().join("captions.safetensors");
/// let captions = vec!["red apple".to_owned(), "pear".to_owned()];
/// Embeddings::new(captions, array![[0.6, 0.8], [0.0, 1.0]])?.write(&path)?;
///
/// let stored = Embeddings::read(&path)?;
/// assert_eq!(stored.find("pear")?.to_vec(), [0.0, 1.0]);
/// assert!(stored.find("green apple").is_err());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Embeddings {
    captions: Vec<String>,
    rows: Array2<f32>,
    by_caption: HashMap<String, usize>,
}

impl Embeddings {
    /// Vectors of captions, one a row, rounded to half precision.
    ///
    /// # Errors
    /// [`NetError::Length`] for another number of rows than captions; [`NetError::Caption`] for a caption that occurs
    /// twice.
    pub fn new(captions: Vec<String>, mut rows: Array2<f32>) -> Result<Self, NetError> {
        if rows.nrows() != captions.len() {
            return Err(NetError::Length {
                operation: "embeddings",
                argument: "the list of captions",
                found: captions.len(),
                expected: rows.nrows(),
            });
        }
        rows.mapv_inplace(|value| f16::from_f32(value).to_f32());
        let mut by_caption = HashMap::new();
        for (at, caption) in captions.iter().enumerate() {
            if by_caption.insert(caption.clone(), at).is_some() {
                let reason = format!("caption {} occurs twice, expected once", quoted(caption));
                return Err(NetError::Caption { reason });
            }
        }
        Ok(Self { captions, rows, by_caption })
    }

    /// The committed vectors of the emoji's names, `data/emoji/captions.safetensors`.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub fn of_emoji(layout: &Layout) -> Result<Self, NetError> {
        Self::read(&layout.root().join("data/emoji/captions.safetensors"))
    }

    /// Reads captions and vectors.
    ///
    /// # Errors
    /// [`NetError::Store`], and [`NetError::Weights`] for a file of another form.
    pub fn read(path: &Path) -> Result<Self, NetError> {
        let bytes = store::read_file(path)?;
        let bad = |reason: String| NetError::Weights { path: path.into(), reason: cut_reason(&reason) };
        let (_, header) = SafeTensors::read_metadata(&bytes).map_err(|e| bad(e.to_string()))?;
        let listed = header.metadata().as_ref().and_then(|metadata| metadata.get(CAPTIONS));
        let listed = listed.ok_or_else(|| bad(format!("has no list of {CAPTIONS}")))?;
        let captions: Vec<String> = from_json(listed.as_bytes()).map_err(bad)?;
        let file = SafeTensors::deserialize(&bytes).map_err(|e| bad(e.to_string()))?;
        let tensor = file.tensor(TENSOR).map_err(|e| bad(e.to_string()))?;
        let (rows, columns) = match (tensor.dtype(), tensor.shape()) {
            (Dtype::F16, &[rows, columns]) if rows == captions.len() => (rows, columns),
            (dtype, shape) => {
                return Err(bad(format!(
                    "'{TENSOR}' is {dtype:?} of shape {shape:?}, expected F16 of {} rows",
                    captions.len()
                )));
            }
        };
        let values = tensor.data().as_chunks().0.iter().map(|b| f16::from_le_bytes(*b).to_f32()).collect();
        let rows = Array2::from_shape_vec((rows, columns), values).map_err(|e| bad(e.to_string()))?;
        Self::new(captions, rows)
    }

    /// Writes captions and vectors.
    ///
    /// # Errors
    /// [`NetError::Store`], [`NetError::Weights`].
    pub fn write(&self, path: &Path) -> Result<(), NetError> {
        let bad = |reason: String| NetError::Weights { path: path.into(), reason };
        let listed = serde_json::to_string(&self.captions).map_err(|e| bad(e.to_string()))?;
        let values: Vec<u8> = self.rows.iter().flat_map(|&v| f16::from_f32(v).to_le_bytes()).collect();
        let shape = self.rows.shape().to_vec();
        let tensor = TensorView::new(Dtype::F16, shape, &values).map_err(|e| bad(e.to_string()))?;
        let metadata = HashMap::from([(CAPTIONS.to_owned(), listed)]);
        let bytes =
            safetensors::serialize([(TENSOR, tensor)], Some(metadata)).map_err(|e| bad(e.to_string()))?;
        Ok(store::write_atomic(path, |out| out.write_all(&bytes))?)
    }

    /// The captions, in the order of the rows.
    pub fn captions(&self) -> &[String] {
        &self.captions
    }

    /// The vectors, one a row.
    pub fn rows(&self) -> ArrayView2<'_, f32> {
        self.rows.view()
    }

    /// The vector of a caption.
    ///
    /// # Errors
    /// [`NetError::Caption`] for a caption that is not stored.
    pub fn find(&self, caption: &str) -> Result<ArrayView1<'_, f32>, NetError> {
        let at = self.by_caption.get(caption).ok_or_else(|| NetError::Caption {
            reason: format!("caption {} has no stored vector; encode it as a new prompt", quoted(caption)),
        })?;
        Ok(self.rows.row(*at))
    }
}
