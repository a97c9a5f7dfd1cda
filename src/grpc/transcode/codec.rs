//! Messages that are known by their descriptors only, on their way through a gRPC client. Must never know: JSON.

use prost::Message;
use prost_reflect::{DynamicMessage, MessageDescriptor};
use tonic::Status;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};

/// Both ways of one method.
#[derive(Clone, Debug)]
pub(super) struct Json {
    pub answer: MessageDescriptor,
}

impl Codec for Json {
    type Encode = DynamicMessage;
    type Decode = DynamicMessage;
    type Encoder = Json;
    type Decoder = Json;

    fn encoder(&mut self) -> Json {
        self.clone()
    }

    fn decoder(&mut self) -> Json {
        self.clone()
    }
}

impl Encoder for Json {
    type Item = DynamicMessage;
    type Error = Status;

    fn encode(&mut self, message: DynamicMessage, to: &mut EncodeBuf<'_>) -> Result<(), Status> {
        message.encode(to).map_err(|e| Status::internal(format!("a request that cannot be written: {e}")))
    }
}

impl Decoder for Json {
    type Item = DynamicMessage;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<DynamicMessage>, Status> {
        let message = DynamicMessage::decode(self.answer.clone(), from);
        message.map(Some).map_err(|e| Status::internal(format!("an answer that cannot be read: {e}")))
    }
}
