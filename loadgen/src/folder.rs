//! The folder of `--out`: its files are begun before the run, so that no measurement is lost for
//! want of a place to keep it, and appear together at its end.
//!
//! Files of an earlier run stand until those of this one are complete.

use std::path::{Path, PathBuf};

use crate::chart;
use crate::hgrm;
use crate::hlog::Hlog;
use crate::interval::{Interval, Phase};
use crate::new_file::{NewFile, make_folder};
use crate::record::RunRecord;
use crate::report::page;

/// The files of one run, being written.
pub(crate) struct Folder {
    path: PathBuf,
    json: NewFile,
    hgrm: NewFile,
    hlog: Hlog<NewFile>,
}

/// What a stored record is shown as: name of the file, and what makes it.
type Picture = (&'static str, fn(&RunRecord) -> String);
const PICTURES: [Picture; 3] = [
    ("latency.svg", chart::latency_file),
    ("timeline.svg", chart::timeline_file),
    ("report.html", page),
];

impl Folder {
    /// Makes the folder if it is missing and begins its files.
    pub(crate) fn open(folder: &Path) -> Result<Folder, String> {
        make_folder("--out", folder)?;
        let begin =
            |name: &str| NewFile::begin(&folder.join(name)).map_err(|e| format!("--out: {e}"));
        Ok(Folder {
            path: folder.to_owned(),
            json: begin("run.json")?,
            hgrm: begin("run.hgrm")?,
            hlog: Hlog::new(begin("run.hlog")?),
        })
    }

    /// Adds an interval to the log; those of the warm-up are left out.
    pub(crate) fn add(&mut self, interval: &Interval) -> Result<(), String> {
        if interval.phase == Phase::WarmUp {
            return Ok(());
        }
        self.hlog
            .write(interval)
            .map_err(|e| self.hlog.out().failed(&e))
    }

    /// Writes the record, the distribution of the whole measured phase and the pictures; names the
    /// files that are there now.
    pub(crate) fn finish(mut self, record: &RunRecord) -> Result<Vec<PathBuf>, String> {
        record
            .write(&mut self.json)
            .map_err(|e| self.json.failed(&e))?;
        hgrm::write(&mut self.hgrm, record.outcome.latency()).map_err(|e| self.hgrm.failed(&e))?;
        let mut files = vec![
            self.json.complete()?,
            self.hgrm.complete()?,
            self.hlog.into_out().complete()?,
        ];
        files.extend(draw(record, &self.path)?);
        Ok(files)
    }
}

/// Writes a record's pictures and page into a folder that is there.
pub(crate) fn draw(record: &RunRecord, folder: &Path) -> Result<Vec<PathBuf>, String> {
    let draw =
        |(name, content): Picture| NewFile::write_all_to(&folder.join(name), &content(record));
    PICTURES.into_iter().map(draw).collect()
}
