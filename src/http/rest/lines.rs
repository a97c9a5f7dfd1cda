//! A body as lines, each within bounds of size and time, read as they come. Must never know: what is in them.

use axum::body::Body;
use bytes::BytesMut;
use futures_util::{Stream, StreamExt, stream};

use super::{BODY_BYTES_MAX, BODY_WAIT_MAX, Problem, too_large};

struct Reading {
    body: axum::body::BodyDataStream,
    read: BytesMut,
    ended: bool,
}

/// Lines with something in them. The first problem is the last item.
pub(super) fn of(body: Body) -> impl Stream<Item = Result<String, Problem>> + Send {
    let reading = Reading { body: body.into_data_stream(), read: BytesMut::new(), ended: false };
    stream::unfold(Some(reading), |reading| async move {
        let mut reading = reading?;
        match next(&mut reading).await {
            Ok(Some(line)) => Some((Ok(line), Some(reading))),
            Ok(None) => None,
            Err(problem) => Some((Err(problem), None)),
        }
    })
}

async fn next(reading: &mut Reading) -> Result<Option<String>, Problem> {
    // Where the search for the end of the line goes on: what was looked at is not looked at again.
    let mut looked = 0;
    loop {
        let end = reading.read[looked..].iter().position(|byte| *byte == b'\n').map(|at| looked + at + 1);
        looked = reading.read.len();
        let taken = match end {
            Some(end) => reading.read.split_to(end),
            None if reading.ended && reading.read.is_empty() => return Ok(None),
            None if reading.ended => reading.read.split(),
            None if reading.read.len() > BODY_BYTES_MAX => return Err(too_large(BODY_BYTES_MAX)),
            None => {
                match tokio::time::timeout(BODY_WAIT_MAX, reading.body.next()).await {
                    Ok(Some(Ok(more))) => reading.read.extend_from_slice(&more),
                    Ok(None) => reading.ended = true,
                    Ok(Some(Err(e))) => {
                        return Err(Problem::new(400, "BAD_BODY", &format!("the body could not be read: {e}")));
                    }
                    Err(_) => {
                        let said = format!("expected the next line within {} s", BODY_WAIT_MAX.as_secs());
                        return Err(Problem::new(408, "BODY_TOO_SLOW", &said));
                    }
                }
                continue;
            }
        };
        looked = 0;
        let line = std::str::from_utf8(&taken).map_err(|_| Problem::new(400, "BAD_JSON", "expected UTF-8"))?.trim();
        if !line.is_empty() {
            return Ok(Some(line.to_owned()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn lines_come_one_by_one_however_the_body_is_cut() {
        let pieces = ["{\"a\"", ":1}\n\n", "{\"b\":2}\r\n{\"c\"", ":3}"].map(Ok::<_, std::io::Error>);
        let got: Vec<_> = of(Body::from_stream(stream::iter(pieces))).collect().await;
        let lines: Vec<String> = got.into_iter().map(Result::unwrap).collect();
        assert_eq!(lines, [r#"{"a":1}"#, r#"{"b":2}"#, r#"{"c":3}"#]);
    }

    #[tokio::test]
    async fn a_line_without_an_end_is_refused_at_the_cap() {
        let endless = stream::repeat_with(|| Ok::<_, std::io::Error>(vec![b'x'; 64 << 10]));
        let got: Vec<_> = of(Body::from_stream(endless)).collect().await;
        assert_eq!(got.len(), 1);
        assert_eq!(got[0].as_ref().unwrap_err().status, 413);
    }
}
