//! The folder of `--out`: opened before the run, so that no measurement is lost for want of a place
//! to keep it.
//!
//! Files of an earlier run are kept until this one really begins.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use crate::hgrm;
use crate::hlog::Hlog;
use crate::interval::{Interval, Phase};
use crate::record::RunRecord;

/// The files of one run, open for writing.
pub(crate) struct Folder {
    json_path: PathBuf,
    json: File,
    hgrm_path: PathBuf,
    hgrm: File,
    hlog_path: PathBuf,
    hlog_file: Option<File>,
    hlog: Option<Hlog<BufWriter<File>>>,
}

/// Makes the folder if it is missing and opens a new file in it.
pub(crate) fn create(folder: &Path, name: &str) -> Result<(PathBuf, File), String> {
    let (path, file) = open_kept(folder, name)?;
    match file.set_len(0) {
        Ok(()) => Ok((path, file)),
        Err(e) => Err(format!("--out: cannot write {}: {e}", path.display())),
    }
}

/// The same, with what an earlier run has left in the file.
fn open_kept(folder: &Path, name: &str) -> Result<(PathBuf, File), String> {
    fs::create_dir_all(folder)
        .map_err(|e| format!("--out {}: cannot make the folder: {e}", folder.display()))?;
    let path = folder.join(name);
    let opened = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path);
    match opened {
        Ok(file) => Ok((path, file)),
        Err(e) => Err(format!("--out: cannot write {}: {e}", path.display())),
    }
}

impl Folder {
    /// Makes the folder if it is missing and opens its files; nothing of an earlier run is lost
    /// yet.
    pub(crate) fn open(folder: &Path) -> Result<Folder, String> {
        let open = |name: &str| open_kept(folder, name);
        let (json_path, json) = open("run.json")?;
        let (hgrm_path, hgrm) = open("run.hgrm")?;
        let (hlog_path, hlog_file) = open("run.hlog")?;
        Ok(Folder {
            json_path,
            json,
            hgrm_path,
            hgrm,
            hlog_path,
            hlog_file: Some(hlog_file),
            hlog: None,
        })
    }

    /// Adds an interval to the log; those of the warm-up are left out.
    pub(crate) fn add(&mut self, interval: &Interval) -> Result<(), String> {
        if interval.phase == Phase::WarmUp {
            return Ok(());
        }
        let path = &self.hlog_path;
        let failed = |e: io::Error| format!("cannot write {}: {e}", path.display());
        if let Some(file) = self.hlog_file.take() {
            file.set_len(0).map_err(failed)?;
            self.hlog = Some(Hlog::new(BufWriter::new(file)));
        }
        self.hlog
            .as_mut()
            .map_or(Ok(()), |log| log.write(interval).map_err(failed))
    }

    /// Writes the record and the distribution of the whole measured phase; names the files that are
    /// there now.
    pub(crate) fn finish(self, record: &RunRecord) -> Result<[PathBuf; 3], String> {
        let write = || {
            if let Some(unused) = &self.hlog_file {
                // Interrupted during the warm-up: the log of an earlier run does not belong to this.
                unused.set_len(0)?;
            }
            self.hgrm.set_len(0)?;
            let mut out = BufWriter::new(&self.hgrm);
            hgrm::write(&mut out, record.outcome.latency())?;
            out.flush()?;
            self.json.set_len(0)?;
            record.write(BufWriter::new(&self.json))
        };
        write().map_err(|e| {
            let (hgrm, hlog) = (self.hgrm_path.display(), self.hlog_path.display());
            let json = self.json_path.display();
            format!("cannot write {json}, {hgrm} or {hlog}: {e}")
        })?;
        Ok([self.json_path, self.hgrm_path, self.hlog_path])
    }
}
