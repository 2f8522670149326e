//! What the controller asks for about publishers.

use std::collections::HashMap;
use std::io;

use leaf_secure::dtls::Fingerprint;

use super::{Leaf, random};
use crate::clock;
use crate::control::publisher::{
    PublisherAdd, PublisherAdded, PublisherKeyFrame, PublisherOnly, PublisherStatistics, Publishers,
};
use crate::control::reply::{Code, Passive, Refusal, Reply};
use crate::worker::credentials;
use crate::worker::publishing::Publishing;

impl Leaf {
    pub(super) fn add_publisher(&mut self, request: PublisherAdd) -> Result<Reply, Refusal> {
        let name = request.publisher.as_str().to_owned();
        if self.publishers.contains_key(&name) {
            return Err(Refusal::new(
                Code::Exists,
                format_args!("publisher {name} is there already"),
            ));
        }
        let fingerprint: Fingerprint = request
            .remote
            .fingerprint
            .as_str()
            .parse()
            .map_err(|error| Refusal::new(Code::Invalid, error))?;
        let worker = self.least_busy();
        let failed = |error: io::Error| Refusal::new(Code::Failed, error);
        let credentials = credentials(worker).map_err(failed)?;
        let [own] = random().map_err(failed)?;
        let added = PublisherAdded {
            ufrag: credentials.ufrag.clone(),
            pwd: credentials.pwd.clone(),
            setup: Passive::Passive,
        };
        let publishing = Publishing::new(request, fingerprint, credentials, own, clock::now());
        let key = self.take_key();
        self.ask(worker, move |worker| worker.add_publisher(key, publishing))??;
        self.publishers.insert(name, worker);
        Ok(Reply::PublisherAdded(added))
    }

    pub(super) fn ask_for_key_frame(&self, of: PublisherKeyFrame) -> Result<Reply, Refusal> {
        let name = of.publisher.as_str().to_owned();
        let worker = publisher_at(&self.publishers, &name)?;
        let rendition = of.rendition.map(|it| it.as_str().to_owned());
        self.ask(worker, move |worker| {
            worker.ask_for_key_frame(&name, rendition.as_deref())
        })??;
        Ok(Reply::Done {})
    }

    pub(super) fn close_publisher(&self, only: PublisherOnly) -> Result<Reply, Refusal> {
        let name = only.publisher.as_str().to_owned();
        let worker = publisher_at(&self.publishers, &name)?;
        self.ask(worker, move |worker| worker.close_publisher(&name))??;
        Ok(Reply::Done {})
    }

    pub(super) fn publisher_statistics(
        &self,
        which: PublisherStatistics,
    ) -> Result<Reply, Refusal> {
        let publishers = match which.publisher {
            Some(name) => {
                let name = name.as_str().to_owned();
                let worker = publisher_at(&self.publishers, &name)?;
                self.ask(worker, move |worker| worker.publisher_figures(Some(&name)))??
            }
            None => {
                let all = self.ask_all(|worker| worker.publisher_figures(None))?;
                all.into_iter().collect::<Result<Vec<_>, _>>()?.concat()
            }
        };
        Ok(Reply::Publishers(Publishers {
            publishers: publishers.into_iter().collect(),
        }))
    }
}

fn publisher_at(publishers: &HashMap<String, usize>, name: &str) -> Result<usize, Refusal> {
    let worker = publishers.get(name).copied();
    worker.ok_or_else(|| Refusal::new(Code::Unknown, format_args!("no publisher {name}")))
}
