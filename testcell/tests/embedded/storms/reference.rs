//! What every file may be.
//!
//! The machine: after a change that succeeded a file is what was written. One that failed may have been made or not, and
//! one that did not reach the server is kept by its writer, who sees it, lays it over what others write, and stores it
//! when it can: until that is decided the file may be any of these.

use std::collections::BTreeMap;

/// The bytes of a file, `None` where there is none.
pub(super) type State = Option<Vec<u8>>;

/// The files of a scenario.
#[derive(Debug, Default)]
pub(super) struct Reference(BTreeMap<String, File>);

#[derive(Debug)]
struct File {
    /// All that it ever may have been, in order.
    history: Vec<State>,
    /// Which of it it may be now.
    now: Vec<usize>,
    /// What each client has seen last: it never sees anything older.
    floor: [usize; 2],
    /// What each client keeps that the server may not have.
    kept: [Vec<Vec<u8>>; 2],
}

impl Default for File {
    fn default() -> Self {
        Self {
            history: vec![None],
            now: vec![0],
            floor: [0; 2],
            kept: <_>::default(),
        }
    }
}

impl File {
    fn may_be(&mut self, state: State) {
        self.now.push(self.history.len());
        self.history.push(state);
    }

    /// It is this, unless somebody keeps something else.
    fn is(&mut self, state: &State) {
        self.now.clear();
        self.may_be(state.clone());
        self.lay_over();
    }

    /// What is kept may be laid over what is there.
    fn lay_over(&mut self) {
        for kept in self.kept.concat() {
            for index in self.now.clone() {
                let below = self.history[index].as_deref().unwrap_or_default();
                let rest = below.get(kept.len()..).unwrap_or_default();
                let state = [&kept[..], rest].concat();
                self.may_be(Some(state));
            }
        }
    }

    fn allows(&self, state: &State) -> bool {
        self.now.iter().any(|index| self.history[*index] == *state)
    }
}

impl Reference {
    fn file(&mut self, name: &str) -> &mut File {
        self.0.entry(name.to_owned()).or_default()
    }

    /// Somebody begins to write: first the file is made or cut, then its bytes come.
    pub(super) fn begins(&mut self, name: &str, data: &[u8]) {
        let file = self.file(name);
        file.may_be(Some(Vec::new()));
        file.may_be(Some(data.to_vec()));
        file.lay_over();
    }

    /// The write that began last succeeded.
    pub(super) fn written(&mut self, who: usize, name: &str, data: Vec<u8>) {
        let file = self.file(name);
        file.kept[who].clear();
        file.is(&Some(data));
        file.floor[who] = file.now[0];
    }

    /// It failed. Its writer may keep the bytes.
    pub(super) fn failed(&mut self, who: usize, name: &str, kept: Option<Vec<u8>>) {
        let file = self.file(name);
        file.kept[who].extend(kept);
        file.lay_over();
    }

    /// A removal succeeded.
    pub(super) fn removed(&mut self, who: usize, name: &str) {
        let file = self.file(name);
        // The next file of this name is another one: nothing is kept of it.
        file.kept = <_>::default();
        file.is(&None);
        file.floor[who] = file.now[0];
    }

    /// A removal failed.
    pub(super) fn may_be_removed(&mut self, name: &str) {
        self.file(name).may_be(None);
    }

    /// May a client see this? `stale`: a server forgot its promises, so the client may not have been told of what came
    /// after what it saw last.
    pub(super) fn sees(&mut self, who: usize, name: &str, state: State, stale: bool) -> Result<(), String> {
        let file = self.file(name);
        let oldest = file.floor[who];
        let found = file.history.iter().rposition(|known| *known == state);
        match found {
            Some(index) if file.allows(&state) || (stale && index >= oldest) => {
                file.floor[who] = index;
                Ok(())
            }
            Some(index) => Err(format!(
                "{} is what it was before: {index} of {}",
                shown(&state),
                file.history.len() - 1
            )),
            None => Err(format!("{} was never there", shown(&state))),
        }
    }

    /// May these be the names that there are?
    pub(super) fn lists(&mut self, names: &[String], stale: bool) -> Result<(), String> {
        if let Some(name) = names.iter().find(|name| !self.0.contains_key(*name)) {
            return Err(format!("nobody made {name}"));
        }
        for (name, file) in &self.0 {
            let is_listed = names.contains(name);
            let is_right = |index: &usize| file.history[*index].is_some() == is_listed;
            let fits =
                file.now.iter().any(is_right) || (stale && (0..file.history.len()).any(|i| is_right(&i)));
            if !fits {
                return Err(format!("{name} is {}listed", if is_listed { "" } else { "not " }));
            }
        }
        Ok(())
    }

    /// May the file be this in the end?
    pub(super) fn allows(&mut self, name: &str, state: &State) -> Result<(), String> {
        if self.file(name).allows(state) {
            Ok(())
        } else {
            Err(format!("{} is not what was stored last", shown(state)))
        }
    }
}

fn shown(state: &State) -> String {
    match state {
        Some(data) => format!("{} bytes beginning with {:02x?}", data.len(), data.get(..4)),
        None => "no file".to_owned(),
    }
}
