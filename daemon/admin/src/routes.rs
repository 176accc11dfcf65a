use futures_util::future::BoxFuture;
use moat_rights::Act;

use crate::Refusal;
use crate::form::segment;
use crate::pages::{
    approvals, bases, boundary, compare, data, door, ledger, models, new_source, overview, people,
    playground, recipe, records, review, rules, runs, set_up, source, sources, sweeps,
};
use crate::site::{Outcome, Visit};

/// What a route needs of whoever asks for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Needs {
    /// Nothing: what there is to see anyone may know, and what is to be done takes a secret of its own.
    Anyone,
    /// An account.
    Account,
    /// An account with a role that allows this.
    Act(Act),
}

/// How a route is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verb {
    /// A page to read.
    Get,
    /// A part of a page that keeps itself up to date.
    Live,
    /// Something to be done.
    Post,
}

/// One route.
pub(crate) struct Route {
    pub(crate) verb: Verb,
    /// Its segments; one in braces stands for any.
    pub(crate) path: &'static str,
    pub(crate) needs: Needs,
    pub(crate) answer: fn(Visit) -> BoxFuture<'static, Result<Outcome, Refusal>>,
}

/// A page in the navigation.
pub(crate) struct Place {
    pub(crate) path: &'static str,
    pub(crate) title: &'static str,
    pub(crate) needs: Needs,
}

/// The pages in the navigation, in the order of the data's way.
pub(crate) const PLACES: &[Place] = &[
    Place { path: "/", title: "Overview", needs: Needs::Act(Act::StatusRead) },
    Place { path: "/sources", title: "Sources", needs: Needs::Act(Act::StatusRead) },
    Place { path: "/data", title: "Data", needs: Needs::Act(Act::StatusRead) },
    Place { path: "/review", title: "Review", needs: Needs::Act(Act::VerdictReview) },
    Place { path: "/runs", title: "Runs", needs: Needs::Act(Act::StatusRead) },
    Place { path: "/models", title: "Models", needs: Needs::Act(Act::EdgeRead) },
    Place { path: "/playground", title: "Playground", needs: Needs::Act(Act::ModelAsk) },
    Place { path: "/approvals", title: "Approvals", needs: Needs::Act(Act::StatusRead) },
    Place { path: "/boundary", title: "Boundary", needs: Needs::Act(Act::StatusRead) },
    Place { path: "/people", title: "People", needs: Needs::Act(Act::StatusRead) },
    Place { path: "/ledger", title: "Ledger", needs: Needs::Act(Act::LedgerRead) },
];

macro_rules! route {
    ($verb:ident $path:literal, $needs:expr, $answer:path) => {
        Route { verb: Verb::$verb, path: $path, needs: $needs, answer: |visit| Box::pin($answer(visit)) }
    };
}

/// Every route but those of the API and of the files that pages are made with.
pub(crate) const ROUTES: &[Route] = &[
    route!(Get "/", Needs::Anyone, overview::front),
    route!(Live "/live/overview", Needs::Act(Act::StatusRead), overview::live),
    route!(Get "/unseal", Needs::Anyone, door::show),
    route!(Post "/unseal", Needs::Anyone, door::unseal),
    route!(Live "/live/unseal", Needs::Anyone, door::live),
    route!(Get "/sign-in", Needs::Anyone, door::show),
    route!(Post "/sign-in", Needs::Anyone, door::sign_in),
    route!(Get "/set-up", Needs::Anyone, set_up::show),
    route!(Post "/set-up", Needs::Anyone, set_up::enlist),
    route!(Post "/set-up/confirm", Needs::Anyone, set_up::confirm),
    route!(Post "/sign-out", Needs::Account, door::sign_out),
    route!(Get "/sources", Needs::Act(Act::StatusRead), sources::show),
    route!(Live "/live/sources", Needs::Act(Act::StatusRead), sources::live),
    route!(Post "/sources/scan", Needs::Act(Act::SourceScan), sources::scan),
    route!(Get "/sources/{source}", Needs::Act(Act::StatusRead), source::show),
    route!(Live "/live/sources/{source}", Needs::Act(Act::StatusRead), source::live),
    route!(Post "/sources/{source}/browse", Needs::Act(Act::RecordRead), source::browse),
    route!(Post "/sources/{source}/test", Needs::Act(Act::RecordRead), source::test),
    route!(Post "/sources/{source}/faults", Needs::Act(Act::RecordWhy), source::faults),
    route!(Post "/sources/{source}/pause", Needs::Act(Act::SourceChange), source::pause_it),
    route!(Post "/sources/{source}/resume", Needs::Act(Act::SourceChange), source::resume),
    route!(Post "/sources/{source}/remove", Needs::Act(Act::SourceChange), source::remove),
    route!(Get "/new-source", Needs::Act(Act::SourceChange), new_source::show),
    route!(Post "/new-source/folders", Needs::Act(Act::SourceChange), new_source::folders),
    route!(Post "/new-source/try", Needs::Act(Act::SourceChange), new_source::attempt),
    route!(Post "/new-source", Needs::Act(Act::SourceChange), new_source::ask),
    route!(Get "/data", Needs::Act(Act::StatusRead), data::show),
    route!(Post "/data/why", Needs::Act(Act::RecordWhy), data::why),
    route!(Post "/data/compare", Needs::Act(Act::RecordWhy), data::compare_two),
    route!(Get "/records", Needs::Act(Act::RecordRead), records::show),
    route!(Post "/records", Needs::Act(Act::RecordRead), records::search),
    route!(Get "/records/{id}", Needs::Act(Act::RecordRead), records::one),
    route!(Get "/review", Needs::Act(Act::VerdictReview), review::show),
    route!(Get "/review/after/{record}", Needs::Act(Act::VerdictReview), review::after),
    route!(Post "/review/{record}/{judgement}", Needs::Act(Act::VerdictReview), review::decide),
    route!(Get "/rules", Needs::Act(Act::RecordRead), rules::show),
    route!(Post "/rules", Needs::Act(Act::RecordRead), rules::attempt),
    route!(Get "/datasets/{id}", Needs::Act(Act::StatusRead), data::dataset),
    route!(Get "/datasets/{older}/to/{newer}", Needs::Act(Act::RecordWhy), data::diff),
    route!(Get "/runs", Needs::Act(Act::StatusRead), runs::show),
    route!(Get "/runs/new", Needs::Act(Act::RunStart), recipe::new),
    route!(Post "/runs/new", Needs::Act(Act::RunStart), recipe::begin),
    route!(Post "/runs/check", Needs::Act(Act::RunStart), recipe::check),
    route!(Post "/runs/preview", Needs::Act(Act::RunStart), recipe::preview),
    route!(Post "/runs/start", Needs::Act(Act::RunStart), recipe::start),
    route!(Post "/runs/compare", Needs::Act(Act::EdgeRead), compare::go),
    route!(Get "/runs/compare/{runs}", Needs::Act(Act::EdgeRead), compare::show),
    route!(Get "/sweeps", Needs::Act(Act::StatusRead), sweeps::show),
    route!(Get "/sweeps/{sweep}", Needs::Act(Act::StatusRead), sweeps::one),
    route!(Live "/live/sweeps/{sweep}", Needs::Act(Act::StatusRead), sweeps::live),
    route!(Post "/sweeps/{sweep}/stop", Needs::Act(Act::RunStop), sweeps::stop),
    route!(Post "/sweeps/{sweep}/resume", Needs::Act(Act::RunStart), sweeps::resume),
    route!(Get "/runs/{run}", Needs::Act(Act::StatusRead), runs::run),
    route!(Live "/live/runs/{run}", Needs::Act(Act::StatusRead), runs::live),
    route!(Post "/runs/{run}/stop", Needs::Act(Act::RunStop), runs::stop),
    route!(Post "/runs/{run}/resume", Needs::Act(Act::RunStart), runs::resume),
    route!(Get "/models", Needs::Act(Act::EdgeRead), models::show),
    route!(Get "/models/{run}", Needs::Act(Act::EdgeRead), models::model),
    route!(Get "/models/{run}/card", Needs::Act(Act::EdgeRead), models::card),
    route!(Get "/models/{run}/card.md", Needs::Act(Act::EdgeRead), models::card_file),
    route!(Post "/models/{run}/sample", Needs::Act(Act::RecordRead), models::sample),
    route!(Post "/models/{run}/export", Needs::Act(Act::ExportRequest), models::ask_export),
    route!(Get "/bases", Needs::Act(Act::StatusRead), bases::show),
    route!(Post "/bases/import", Needs::Act(Act::BaseImport), bases::import),
    route!(Get "/playground", Needs::Act(Act::ModelAsk), playground::show),
    route!(Get "/playground/{run}", Needs::Act(Act::ModelAsk), playground::with_model),
    route!(Post "/playground", Needs::Act(Act::ModelAsk), playground::ask),
    route!(Post "/playground/stream", Needs::Act(Act::ModelAsk), playground::stream),
    route!(Post "/playground/take", Needs::Act(Act::ModelAsk), playground::take),
    route!(Get "/approvals", Needs::Act(Act::StatusRead), approvals::show),
    route!(Get "/approvals/{id}", Needs::Act(Act::StatusRead), approvals::one),
    route!(Post "/approvals/{id}/agree", Needs::Act(Act::ExportApprove), approvals::agree),
    route!(Post "/approvals/{id}/withdraw", Needs::Act(Act::StatusRead), approvals::withdraw),
    route!(Get "/boundary", Needs::Act(Act::StatusRead), boundary::show),
    route!(Post "/boundary/seal", Needs::Act(Act::VaultSeal), boundary::seal_now),
    route!(Post "/boundary/rotate", Needs::Act(Act::VaultRotate), boundary::rotate),
    route!(Get "/people", Needs::Act(Act::StatusRead), people::show),
    route!(Get "/people/{name}", Needs::Act(Act::StatusRead), people::one),
    route!(Post "/people/new", Needs::Act(Act::AccountCreate), people::make),
    route!(Post "/people/{name}/reset", Needs::Act(Act::AccountReset), people::reset),
    route!(Post "/people/{name}/roles", Needs::Act(Act::RoleRequest), people::ask_roles),
    route!(Post "/people/{name}/disable", Needs::Act(Act::AccountDisable), people::disable),
    route!(Post "/keys/new", Needs::Act(Act::KeyCreate), people::make_key),
    route!(Post "/keys/{id}/revoke", Needs::Act(Act::KeyRevoke), people::revoke_key),
    route!(Get "/ledger", Needs::Act(Act::LedgerRead), ledger::show),
    route!(Get "/ledger/entry/{index}", Needs::Act(Act::LedgerRead), ledger::entry),
    route!(Get "/ledger/{kind}", Needs::Act(Act::LedgerRead), ledger::part),
    route!(Get "/ledger/{kind}/{before}", Needs::Act(Act::LedgerRead), ledger::part),
    route!(Post "/ledger/receipt", Needs::Act(Act::LedgerRead), ledger::receipt),
];

/// A route as those who judge it see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RouteFacts {
    /// `GET` or `POST`.
    pub method: &'static str,
    /// Its segments; one in braces stands for any.
    pub path: &'static str,
    /// What it needs.
    pub needs: Needs,
    /// Whether it streams.
    pub live: bool,
}

/// Every route of the pages.
pub fn routes() -> impl Iterator<Item = RouteFacts> {
    ROUTES.iter().map(|route| RouteFacts {
        method: if route.verb == Verb::Post { "POST" } else { "GET" },
        path: route.path,
        needs: route.needs,
        live: route.verb == Verb::Live,
    })
}

/// What a path leads to.
pub(crate) enum Found {
    /// A route, with what stands in place of its braces.
    Route(&'static Route, Vec<String>),
    /// A path that is there for another method.
    Method,
    /// Nothing.
    Nothing,
}

/// Finds the route of a path.
pub(crate) fn find(post: bool, path: &str) -> Found {
    let mut other = false;
    for route in ROUTES {
        let Some(segments) = fits(route.path, path) else { continue };
        if (route.verb == Verb::Post) == post {
            return Found::Route(route, segments);
        }
        other = true;
    }
    if other { Found::Method } else { Found::Nothing }
}

fn fits(pattern: &str, path: &str) -> Option<Vec<String>> {
    let (mut found, mut rest) = (Vec::new(), path.split('/'));
    for part in pattern.split('/') {
        let given = rest.next()?;
        if part.starts_with('{') {
            found.push(segment(given).filter(|text| !text.is_empty())?);
        } else if part != given {
            return None;
        }
    }
    rest.next().is_none().then_some(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_fits_its_pattern_alone() {
        assert_eq!(fits("/runs/{run}", "/runs/a%2Fb"), Some(vec!["a/b".to_owned()]));
        for path in ["/runs", "/runs/", "/runs/a/b", "/run/a", "runs/a", "/runs/%"] {
            assert_eq!(fits("/runs/{run}", path), None, "{path}");
        }
        assert_eq!(fits("/", "/"), Some(Vec::new()));
    }

    #[test]
    fn every_page_of_the_navigation_is_a_route_with_the_same_needs() {
        for place in PLACES {
            let found = ROUTES.iter().find(|route| route.path == place.path && route.verb == Verb::Get);
            // The front page shows the door to whoever is not signed in.
            let same = |route: &Route| route.needs == place.needs || route.path == "/";
            assert!(found.is_some_and(same), "{}", place.path);
        }
    }

    #[test]
    fn what_anyone_may_do_is_opening_the_box_signing_in_and_taking_up_an_invitation() {
        let open = ROUTES.iter().filter(|route| route.verb == Verb::Post && route.needs == Needs::Anyone);
        assert_eq!(
            open.map(|route| route.path).collect::<Vec<_>>(),
            ["/unseal", "/sign-in", "/set-up", "/set-up/confirm"]
        );
    }
}
