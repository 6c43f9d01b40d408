//! TCP of the task model.
