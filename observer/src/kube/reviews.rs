//! Whose a token is, and what its owner may do: asked of the API server.

use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec, UserInfo};
use k8s_openapi::api::authorization::v1::{
    NonResourceAttributes, ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec,
};
use kube::{Api, Client, api::PostParams};

use super::connect::{ConnectError, Connection};
use super::health::{Health, chain};

/// Somebody whom the API server knows.
#[derive(Clone, Debug, PartialEq)]
pub struct User(UserInfo);

/// What somebody may do, or not.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Doing {
    /// Read the logs of pods in a namespace; in all of them if it is empty.
    ReadLogs(String),
    /// Read metrics.
    ReadMetrics,
}

/// Asks the API server.
#[derive(Clone)]
pub struct Reviews {
    client: Client,
}

impl Reviews {
    /// Over this connection.
    ///
    /// # Errors
    /// When no client can be made of it.
    pub fn over(connection: &Connection) -> Result<Self, ConnectError> {
        // Nothing is watched, so nobody asks how old the news is.
        Ok(Self { client: connection.client(&Health::of("reviews", || 0))? })
    }

    /// Whose this token is; nobody's if the API server does not accept it.
    ///
    /// # Errors
    /// Why the API server does not tell.
    pub async fn user(&self, token: &str) -> Result<Option<User>, String> {
        let spec = TokenReviewSpec { token: token.to_owned(), ..TokenReviewSpec::default() };
        let review = TokenReview { spec, ..TokenReview::default() };
        let reviews: Api<TokenReview> = Api::all(self.client.clone());
        let answer = reviews.create(&PostParams::default(), &review).await.map_err(|error| chain(&error))?;
        let status = answer.status.unwrap_or_default();
        let user = status.user.filter(|_| status.authenticated.unwrap_or(false));
        // A user without a name could be anybody.
        Ok(user.filter(|user| user.username.as_ref().is_some_and(|name| !name.is_empty())).map(User))
    }

    /// Whether somebody may do something.
    ///
    /// # Errors
    /// Why the API server does not tell.
    pub async fn may(&self, user: &User, doing: &Doing) -> Result<bool, String> {
        let User(UserInfo { extra, groups, uid, username }) = user.clone();
        let mut spec = SubjectAccessReviewSpec {
            extra,
            groups,
            uid,
            user: username,
            ..SubjectAccessReviewSpec::default()
        };
        match doing {
            Doing::ReadLogs(namespace) => {
                spec.resource_attributes = Some(ResourceAttributes {
                    namespace: Some(namespace.clone()),
                    verb: Some("get".to_owned()),
                    resource: Some("pods".to_owned()),
                    subresource: Some("log".to_owned()),
                    ..ResourceAttributes::default()
                });
            }
            Doing::ReadMetrics => {
                spec.non_resource_attributes = Some(NonResourceAttributes {
                    path: Some("/metrics".to_owned()),
                    verb: Some("get".to_owned()),
                });
            }
        }
        let review = SubjectAccessReview { spec, ..SubjectAccessReview::default() };
        let reviews: Api<SubjectAccessReview> = Api::all(self.client.clone());
        let answer = reviews.create(&PostParams::default(), &review).await.map_err(|error| chain(&error))?;
        let status = answer.status.unwrap_or_default();
        Ok(status.allowed && status.denied != Some(true))
    }
}
