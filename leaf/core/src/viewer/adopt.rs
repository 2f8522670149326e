//! Going on with a viewer of another process.

use crate::Micros;
use crate::cursor::StreamId;
use crate::output::Sink;
use crate::picture::Mode;
use crate::streams::Streams;

use super::{Adoption, Viewer};

impl Viewer {
    /// Go on in this process with a viewer of another one.
    pub fn adopt(
        &mut self,
        adoption: Adoption,
        streams: &Streams,
        now: Micros,
        sink: &mut impl Sink,
    ) {
        let Adoption {
            rungs,
            sound,
            clock,
            jump,
        } = adoption;
        let sent = self.rung_sent();
        self.ladder.renumber(rungs);
        let sent = sent.and_then(|at| Some(self.ladder.rungs().get(at)?.stream));
        self.heard = sound;
        (self.reported, self.changed) = (now, now);
        self.refreshed = None;
        self.started = Some(now);
        if let Some(it) = &mut self.sound {
            it.cursor.shift_clock(clock);
            it.cursor.jump(jump, now);
            let ring = sound.and_then(|id| Some((id, &streams.get(id)?.ring)));
            it.stream = sound;
            if jump > 0 || !ring.is_some_and(|(id, ring)| it.cursor.rebase(id, ring)) {
                it.cursor.forget();
                it.begin_anew();
            }
            it.flush(streams, sink);
        }
        let Some(wanted) = self.ladder.rung().map(|rung| rung.stream) else {
            return;
        };
        let Some(picture) = &mut self.picture else {
            return;
        };
        picture.cursor.shift_clock(clock);
        picture.hurry.end(now);
        picture.jump(jump, now);
        picture.pending = None;
        let here = sent.and_then(|id| Some((id, &streams.get(id)?.ring)));
        match here.filter(|_| jump == 0) {
            Some((sent, ring)) if picture.cursor.rebase(sent, ring) => {
                picture.stream = Some(sent);
                picture.pending = Some(wanted).filter(|wanted| *wanted != sent);
                picture.flush(streams, now, sink);
            }
            _ => {
                picture.cursor.forget();
                self.begin(wanted, streams, now, sink);
            }
        }
    }

    /// The rung whose packets were sent last, which need not be the one that is wanted; None if it
    /// waited for a key frame.
    fn rung_sent(&self) -> Option<usize> {
        let picture = self.picture.as_ref()?;
        let sent: StreamId = picture
            .stream
            .filter(|_| self.started.is_some() && picture.mode != Mode::Waiting)?;
        let rungs = self.ladder.rungs();
        rungs.iter().position(|rung| rung.stream == sent)
    }
}
