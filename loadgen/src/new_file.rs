//! A file that is there whole or not at all: written under a temporary name beside its place, and
//! renamed to it once it is complete.
//!
//! Opened before the work whose result it takes, so that an unwritable place is found in time. What
//! stood there before stays until the new file is complete; a file that is given up leaves nothing.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process;

/// A file that is being written.
#[derive(Debug)]
pub(crate) struct NewFile {
    path: PathBuf,
    temporary: PathBuf,
    out: BufWriter<File>,
    is_complete: bool,
}

/// Makes a folder for new files if it is missing; `option` is how the user named it.
pub(crate) fn make_folder(option: &str, folder: &Path) -> Result<(), String> {
    fs::create_dir_all(folder)
        .map_err(|e| format!("{option} {}: cannot make the folder: {e}", folder.display()))
}

impl NewFile {
    /// Begins a file that will stand at `path`.
    pub(crate) fn begin(path: &Path) -> Result<NewFile, String> {
        let failed = |e: &dyn std::fmt::Display| format!("cannot write {}: {e}", path.display());
        if path.is_dir() {
            return Err(failed(&"it is a folder"));
        }
        let name = path.file_name().ok_or_else(|| failed(&"no file name"))?;
        // Two programs may write the same file at the same time: the last one wins, whole.
        let name = format!(".{}.{}.part", name.to_string_lossy(), process::id());
        let temporary = path.with_file_name(name);
        let file = File::create(&temporary).map_err(|e| failed(&e))?;
        Ok(NewFile {
            path: path.to_owned(),
            temporary,
            out: BufWriter::new(file),
            is_complete: false,
        })
    }

    /// Writes a whole file.
    pub(crate) fn write_all_to(path: &Path, content: &str) -> Result<PathBuf, String> {
        let mut file = NewFile::begin(path)?;
        file.out
            .write_all(content.as_bytes())
            .map_err(|e| file.failed(&e))?;
        file.complete()
    }

    /// Puts the file in its place and names it.
    pub(crate) fn complete(mut self) -> Result<PathBuf, String> {
        self.out.flush().map_err(|e| self.failed(&e))?;
        fs::rename(&self.temporary, &self.path).map_err(|e| self.failed(&e))?;
        self.is_complete = true;
        Ok(self.path.clone())
    }

    /// The message of an error met while writing.
    pub(crate) fn failed(&self, error: &io::Error) -> String {
        format!("cannot write {}: {error}", self.path.display())
    }
}

impl Write for NewFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.out.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

impl Drop for NewFile {
    fn drop(&mut self) {
        if !self.is_complete && fs::remove_file(&self.temporary).is_err() {
            // Somebody else has taken it away already, or the folder: nothing is left to tidy.
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Write;
    use std::path::PathBuf;

    use super::NewFile;

    fn folder(name: &str) -> PathBuf {
        let folder = std::env::temp_dir().join(format!("loadgen-{name}-{}", std::process::id()));
        fs::create_dir_all(&folder).expect("the temporary folder is writable");
        folder
    }

    #[test]
    fn old_file_stands_until_the_new_one_is_complete() {
        let folder = folder("new-file");
        let path = folder.join("a");
        fs::write(&path, "old").expect("writable");
        let mut file = NewFile::begin(&path).expect("a place");
        file.write_all(b"new").expect("a file takes it");
        assert_eq!(fs::read_to_string(&path).expect("readable"), "old");
        file.complete().expect("the place is still there");
        assert_eq!(fs::read_to_string(&path).expect("readable"), "new");
        let mut given_up = NewFile::begin(&path).expect("a place");
        given_up.write_all(b"half").expect("a file takes it");
        drop(given_up);
        assert_eq!(fs::read_to_string(&path).expect("readable"), "new");
        let n_files = fs::read_dir(&folder).expect("readable").count();
        assert_eq!(n_files, 1, "no temporary file is left");
        fs::remove_dir_all(&folder).expect("ours");
    }

    #[test]
    fn place_that_cannot_be_written_is_named() {
        let folder = folder("no-file");
        let error = NewFile::begin(&folder).expect_err("a folder is no file");
        assert!(error.contains("it is a folder"), "{error}");
        let error = NewFile::begin(&folder.join("missing/a")).expect_err("no such folder");
        assert!(error.contains("missing/a: "), "{error}");
        fs::remove_dir_all(&folder).expect("ours");
    }
}
