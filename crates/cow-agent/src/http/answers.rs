//! The problems that operations may answer with, for the document: each operation lists its own.

use super::problem::{MEDIA_TYPE, Problem};
use std::collections::BTreeMap;
use utoipa::openapi::{
    ContentBuilder, HeaderBuilder, ObjectBuilder, Ref, RefOr, Response, ResponseBuilder, Type,
};
use utoipa::{IntoResponses, ToSchema};

fn problem(description: &str) -> ResponseBuilder {
    let schema = Ref::from_schema_name(Problem::name());
    let content = ContentBuilder::new().schema(Some(schema)).build();
    ResponseBuilder::new().description(description).content(MEDIA_TYPE, content)
}

macro_rules! answers {
    ($($(#[$doc:meta])* $name:ident { $($code:literal => $text:literal,)* })*) => {$(
        $(#[$doc])*
        pub(super) struct $name;

        impl IntoResponses for $name {
            fn responses() -> BTreeMap<String, RefOr<Response>> {
                [$(($code, problem($text)),)*]
                    .into_iter()
                    .map(|(code, response)| (code.to_owned(), response.build().into()))
                    .collect()
            }
        }
    )*};
}

answers! {
    /// Of every operation but for the missing token.
    Refused {
        "400" => "The request cannot be carried out: a parameter, the body, a limit or the state \
            of the server does not allow it",
        "408" => "The body did not arrive in time",
        "413" => "The body has more than 64 KiB",
        "431" => "The head has more than 32 KiB or 100 fields",
        "500" => "The agent or its pool is at fault",
        "503" => "The pool does nothing any more until the agent is started again",
    }
    /// Of operations on something.
    Missing {
        "404" => "It does not exist",
    }
    /// Of operations that somebody else may be in the way of.
    Busy {
        "409" => "Somebody has it open, or it is being changed",
    }
    /// Of operations that take space.
    Full {
        "507" => "The pool is full",
    }
}

/// Of every operation.
pub(super) struct Common;

impl IntoResponses for Common {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        let text = ObjectBuilder::new().schema_type(Type::String);
        let challenge =
            HeaderBuilder::new().schema(Some(text)).description(Some("`Bearer`")).build();
        let unauthorised =
            problem("The token is missing or wrong").header("WWW-Authenticate", challenge).build();
        let mut responses = Refused::responses();
        responses.insert("401".into(), unauthorised.into());
        responses
    }
}
