-- Health of a FineTuneJob for Argo CD; belongs under
-- resource.customizations.health.tunewright.dev_FineTuneJob in the ConfigMap argocd-cm.
-- A job that trains is Progressing, for it may take days and has nothing to show before its end.
local health = { status = "Progressing", message = "Waiting for the operator to see the job" }
local status = obj.status
if status == nil or status.conditions == nil then
  return health
end
if status.message ~= nil and status.message ~= "" then
  health.message = status.message
end
-- What status says is of an older spec, or the job is on its way out.
if obj.metadata.deletionTimestamp ~= nil or status.observedGeneration ~= obj.metadata.generation then
  return health
end
for _, condition in ipairs(status.conditions) do
  if condition.type == "Succeeded" and condition.status == "True" then
    health.status = "Healthy"
    return health
  end
  if condition.type == "Stalled" and condition.status == "True" then
    health.status = "Degraded"
    return health
  end
end
for _, condition in ipairs(status.conditions) do
  if condition.type == "Running" and condition.reason == "Suspended" then
    health.status = "Suspended"
  end
end
return health
