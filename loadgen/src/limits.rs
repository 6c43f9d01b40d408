//! The process's limit of open files, raised as far as an ordinary user may, so that many
//! connections need no `ulimit`.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Files open besides connections: standard streams, selectors, the files of `--out`. Generous.
const N_OTHER_FILES: u64 = 64;

/// Makes room for `connections`, or says how many there is room for.
pub(crate) fn make_room_for(connections: usize, threads: usize) -> Result<(), String> {
    let wanted = connections as u64 + threads as u64 + N_OTHER_FILES;
    let limit = getrlimit(Resource::Nofile);
    // No limit at all is written as none.
    if limit.current.is_none_or(|current| current >= wanted) {
        return Ok(());
    }
    if let Some(most) = limit.maximum
        && most < wanted
    {
        return Err(format!(
            "--connections {connections} needs {wanted} open files, this process may have \
             {most}; raise the hard limit \
             (ulimit -Hn) or use fewer connections"
        ));
    }
    let raised = Rlimit {
        current: Some(wanted),
        maximum: limit.maximum,
    };
    setrlimit(Resource::Nofile, raised).map_err(|e| {
        format!("cannot raise the limit of open files to {wanted}: {e}; raise it with ulimit -n")
    })
}

#[cfg(test)]
mod tests {
    use super::make_room_for;

    #[test]
    fn few_connections_need_nothing_and_too_many_are_refused_with_the_limit() {
        assert_eq!(make_room_for(1, 1), Ok(()));
        let hard = rustix::process::getrlimit(rustix::process::Resource::Nofile).maximum;
        if let Some(hard) = hard {
            let error = make_room_for(hard as usize, 1).expect_err("more than the hard limit");
            assert!(error.contains(&format!("may have {hard}")), "{error}");
        }
    }
}
