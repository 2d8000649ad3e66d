//! An image in OCI's layout, as `cargo xtask dist` leaves it.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;

/// An image.
pub struct Image {
    folder: PathBuf,
    /// Its manifest.
    pub manifest: Value,
    /// How it is to be run: the member `config` of its configuration.
    pub config: Value,
}

impl Image {
    /// Reads the one image of a folder.
    pub fn read(folder: &Path) -> Self {
        let index = json(&folder.join("index.json"));
        let manifest = json(&blob(folder, &index["manifests"][0]));
        let config = json(&blob(folder, &manifest["config"]))["config"].clone();
        Self { folder: folder.to_owned(), manifest, config }
    }

    /// Unpacks its layers.
    pub fn unpack(&self, into: &Path) {
        for layer in self.manifest["layers"].as_array().expect("layers") {
            let mut tar = Command::new("tar");
            tar.args(["--extract", "--gzip", "--numeric-owner", "--file"]).arg(blob(&self.folder, layer));
            let done = tar.arg("--directory").arg(into).status().expect("tar");
            assert!(done.success(), "{tar:?}: {done}");
        }
    }

    /// Bytes that a registry is sent.
    pub fn compressed(&self) -> u64 {
        let layers = self.manifest["layers"].as_array().expect("layers").iter();
        layers.map(|layer| layer["size"].as_u64().expect("a size")).sum()
    }
}

fn json(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).expect("a file of an image")).expect("JSON")
}

fn blob(folder: &Path, descriptor: &Value) -> PathBuf {
    folder.join("blobs").join(descriptor["digest"].as_str().expect("a digest").replace(':', "/"))
}
