//! Lists, whole: page after page until the end.

use fleetd_proto::fleetd::{access, configuration, device, enrolment, group, release, rollout};

use super::{CallError, FleetClient};

/// Entries of one page: as many as the API gives at once.
const PAGE_SIZE: u32 = 1000;

macro_rules! pages {
    ($($all:ident: $list:ident($request:ty) -> $field:ident: $item:ty;)*) => {
        impl FleetClient {
            $(
                #[doc = concat!("Calls `", stringify!($list), "` until there is no more.")]
                ///
                /// # Errors
                /// [`CallError`] of the first page that does not come.
                pub async fn $all(&self, mut request: $request) -> Result<Vec<$item>, CallError> {
                    let mut items = Vec::new();
                    request.page_size = PAGE_SIZE;
                    loop {
                        let response = self.$list(request.clone()).await?;
                        items.extend(response.$field);
                        if response.next_page_token.is_empty() {
                            return Ok(items);
                        }
                        request.page_token = response.next_page_token;
                    }
                }
            )*
        }
    };
}

pages! {
    all_devices: list_devices(device::v1::ListDevicesRequest) -> devices: device::v1::Device;
    all_releases: list_releases(release::v1::ListReleasesRequest) -> releases: release::v1::Release;
    all_configurations: list_configurations(configuration::v1::ListConfigurationsRequest)
        -> configurations: configuration::v1::Configuration;
    all_groups: list_groups(group::v1::ListGroupsRequest) -> groups: group::v1::Group;
    all_rollouts: list_rollouts(rollout::v1::ListRolloutsRequest) -> rollouts: rollout::v1::Rollout;
    all_planned_devices: get_plan(rollout::v1::GetPlanRequest) -> devices: rollout::v1::PlannedDevice;
    all_rollout_devices: get_rollout(rollout::v1::GetRolloutRequest) -> devices: rollout::v1::RolloutDevice;
    all_access_tokens: list_access_tokens(access::v1::ListAccessTokensRequest) -> access_tokens: access::v1::AccessToken;
    all_enrolment_tokens: list_enrolment_tokens(enrolment::v1::ListEnrolmentTokensRequest)
        -> enrolment_tokens: enrolment::v1::EnrolmentToken;
    all_pending_devices: list_pending_devices(enrolment::v1::ListPendingDevicesRequest)
        -> pending_devices: enrolment::v1::PendingDevice;
}
